"""Stage `images`: draw N images of each prompt, and record the origin of each image.

Round 1 draws all prompts with the base. A later round draws the training prompts with a model of
the previous round, and a share of the images with the base; it only adds images.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from data.errors import PictuneError
from data.files import locked
from data.image_files import THREADS
from data.runs import RunFolder
from data.schema import IMAGES, PLAYGROUND, PROMPTS, SESSION, prompt_id, read_table, write_table
from data.weights import check_model_folder
from finetune.model.processes import Processes, launched
from finetune.settings.sampler import Sampler
from pipelines.finetune.plan import training_prompts
from pipelines.flags import add_method
from pipelines.interruption import ends_at_once
from pipelines.methods import METHODS
from pipelines.run.image_plan import DrawnBy, ImagesConfig, Planned, image_row, round_seeds, seeded
from pipelines.run.mixes import SavedAdapters, is_mix, read_mix
from pipelines.run.model_hashes import weights_hash
from pipelines.run.prompts import prompts_digest, prompts_of
from pipelines.run.record import STAMP, StageFolder, read_stamp
from pipelines.run.rounds import adapter_to_go_on_from, refuse_unlabeled, tuned_methods
from pipelines.settings.config import Settings
from pipelines.settings.run import RunConfig
from pipelines.settings.stages import RoundsConfig

if TYPE_CHECKING:
    from pipelines.run.drawing import Drawer

BASE_SHARE = 0.25
"""Share of a later round's images that the base draws."""
TABLES = ("run", "sampler", "images")


def plan(
    prompts: Iterable[str], focus: Sequence[str], config: ImagesConfig, run_seed: int
) -> list[Planned]:
    """Return every image of round 1, prompt by prompt."""
    planned = []
    for prompt in prompts:
        count = config.per_focus_prompt if prompt in focus else config.per_prompt
        planned += seeded([prompt], count, run_seed)
    return planned


def main(
    run: RunFolder, settings: Settings, *, to_round: int | None = None, method: str | None = None
) -> None:
    """Draw the missing images, then write `images.parquet` and `prompts.parquet`.

    Args:
        run: the run, in its current round.
        settings: its settings.
        to_round: the current round, to continue it, or the next round; omitted, the current round.
        method: in a round after the first, the method whose adapter draws; omitted, the method that
            this round was started with, or the only method with an adapter.

    Raises:
        PictuneError: there is no such round, or its starting point is missing or has changed.
    """
    number = run.round if to_round is None else to_round
    if number not in (run.round, run.round + 1):
        raise PictuneError(
            f"ROUND={number}: {run.root} is in round {run.round}; "
            f"give {run.round} to go on with it, or {run.round + 1} for the next"
        )
    with launched(settings.run.device) as processes:
        if number == 1:
            _draw_first_round(run, settings, processes)
        else:
            _draw_later_round(run.in_round(number), settings, method, processes)


def _draw_first_round(run: RunFolder, settings: Settings, processes: Processes) -> None:
    config, sampler = settings.table("images", ImagesConfig), settings.table("sampler", Sampler)
    prompts = prompts_of(settings.run)
    focus = () if settings.run.prompts_file else settings.run.focus_prompts
    planned = plan(prompts, focus, config, settings.run.seed)
    weights = _weights_of(settings.run)
    drawn_by = DrawnBy(settings.run.model, weights, sampler)
    stage = StageFolder(
        run,
        settings,
        run.images_dir,
        "images",
        TABLES,
        inputs={"model": weights, "prompts": prompts_digest(prompts)},
        outputs=(run.images_table, run.prompts_table),
        goes_on_from={"[!.]*.png": TABLES},
    )
    if stage.earlier is not None and stage.earlier.inputs.get("model") != weights:
        raise PictuneError(
            f"{stage.folder}: its images were drawn by other weights than the model has now; "
            "use another RUN="
        )
    is_done = stage.is_done and all((run.images_dir / one.file_name).exists() for one in planned)
    if processes.skips(is_done, f"images: done, {len(planned)} images in {run.images_dir}"):
        return
    drawer = _opened(settings, processes)
    if stage.earlier is None and processes.is_first:
        print(
            f"images: new run {run.root.name}: {len(planned)} images of {len(prompts)} prompts by "
            f"{settings.run.model}; CONFIG=, MODEL= and PROMPTS= choose others",
            flush=True,
        )
    draw = partial(drawer.draw_missing, planned, run.images_dir, sampler)
    if not processes.is_first:
        draw()
        return
    with stage.working():
        drawn = draw()
        listed = _write_images(run, _rows(run, planned, drawn_by))
        _write_prompts(run, prompts, known=True)
    print(f"images: {drawn} drawn, {listed} in {run.images_table}")


def _weights_of(config: RunConfig) -> str:
    """Return the hash of the model's weights; download a hub model first."""
    check_model_folder(config.model)
    try:
        return weights_hash(config.model)
    except PictuneError:
        with ends_at_once():
            from pipelines.run.models import open_model  # noqa: PLC0415 - loads torch

        open_model(config)  # downloads the weights, or explains the error in the folder
        return weights_hash(config.model)


def _opened(settings: Settings, processes: Processes) -> "Drawer":
    with ends_at_once():
        from pipelines.run.drawing import Drawer  # noqa: PLC0415 - loads torch

    return Drawer.open(settings, processes)


def _draw_later_round(
    run: RunFolder, settings: Settings, method: str | None, processes: Processes
) -> None:
    sampler = settings.table("sampler", Sampler)
    prompts = training_prompts(settings)
    weights = weights_hash(settings.run.model)
    _refuse_other_images(run, weights)
    refuse_unlabeled(run.in_round(run.round - 1))
    method = _method_of(run, method)
    mix = read_mix("METHOD", method, METHODS)
    folders = {adapter_to_go_on_from(run, one, weights): w for one, w in mix.weights.items()}
    saved = SavedAdapters(folders, mix.one_a_step)
    adapter = saved.hash
    count = settings.table("rounds", RoundsConfig).images_per_prompt
    tuned, first = count - round(BASE_SHARE * count), round_seeds(run.round)
    by_tuned = seeded(prompts, tuned, settings.run.seed, offset=first)
    by_base = seeded(prompts, count - tuned, settings.run.seed, offset=first + tuned)
    planned, tables = [*by_tuned, *by_base], (*TABLES, "rounds")
    digest = prompts_digest(prompts)
    stage = StageFolder(
        run,
        settings,
        run.round_dir,
        run.titled("images"),
        tables,
        {"model": weights, "prompts": digest, "method": method, "adapter": adapter},
        outputs=(run.images_table, *(run.images_dir / one.file_name for one in planned)),
        # The first image is in the first batch; the folder also holds images of other rounds.
        goes_on_from={f"../../{run.images_dir.name}/{planned[0].file_name}": tables},
    )
    line = f"images: done, round {run.round} has {len(planned)} images in {run.images_dir}"
    if processes.skips(stage.is_done, line):
        return
    if stage.earlier is not None and stage.stamp is None:
        raise PictuneError(
            f"{stage.folder}: round {run.round} was begun with another model, adapter or prompts; "
            "put those back, or use another RUN="
        )
    drawer = _opened(settings, processes)
    saved.load(drawer.model)

    def draw() -> int:
        drawn = drawer.draw_missing(by_tuned, run.images_dir, sampler)
        with drawer.model.adapter_off():
            return drawn + drawer.draw_missing(by_base, run.images_dir, sampler)

    if not processes.is_first:
        draw()
        return
    with stage.working():
        drawn = draw()
        base = DrawnBy(settings.run.model, weights, sampler)
        rows = _rows(run, by_tuned, replace(base, adapter_hash=adapter)) + _rows(run, by_base, base)
        known = prompts_of(settings.run)
        _write_prompts(run, {one: known.get(one) for one in prompts}, known=False)
        listed = _write_images(run, rows)
    print(
        f"images: {drawn} drawn, {listed} in {run.images_table}; "
        f"round {run.round}: {len(by_tuned)} by {method}, {len(by_base)} by the base"
    )


def _method_of(run: RunFolder, method: str | None) -> str:
    """Return the method whose adapter draws the round.

    Raises:
        PictuneError: the round was started with another method, or several methods have an adapter
            and none is named.
    """
    stamp, before = read_stamp(run.round_dir / STAMP), run.in_round(run.round - 1)
    begun = None if stamp is None else stamp.inputs.get("method")
    if begun is not None and method not in (None, begun):
        raise PictuneError(
            f"METHOD={method}: round {run.round} was begun with the model of {begun}; go on with it"
        )
    tuned = tuned_methods(before)
    if (found := begun or method or (tuned[0] if len(tuned) == 1 else None)) is not None:
        return found
    reason = f"{', '.join(tuned)} tuned models" if tuned else "no method tuned a model"
    advice = "name one" if tuned else "run `make finetune` first"
    raise PictuneError(f"METHOD=: {reason} in round {before.round}; {advice}")


def _refuse_other_images(run: RunFolder, weights: str) -> None:
    """Refuse to add images if other weights drew the run's images."""
    if not run.images_table.exists():
        raise PictuneError(f"{run.root}: has no images yet; run `make images` without ROUND= first")
    stamp = read_stamp(run.images_dir / STAMP)
    drawn_by = {None if stamp is None else stamp.inputs.get("model")}
    for row in read_table(run.images_table, IMAGES).to_pylist():
        if row["round"] is not None:  # other images may be imported
            drawn_by.add(row["model_hash"])
    if drawn_by - {None, weights}:
        raise PictuneError(
            f"{run.images_table}: earlier rounds were drawn by other weights than the model has "
            "now, and one run cannot mix two; put those back, or use another RUN="
        )


def _rows(run: RunFolder, planned: Sequence[Planned], by: DrawnBy) -> list[dict[str, object]]:
    def row(one: Planned) -> dict[str, object]:
        return image_row(run, run.images_dir / one.file_name, one, by)

    with ThreadPoolExecutor(THREADS) as pool:  # hashing releases the GIL
        return list(pool.map(row, planned))


def _write_images(run: RunFolder, rows: Sequence[dict[str, object]]) -> int:
    """Write the rows after the rows of other images, to which labels may refer; return the count.

    The lock protects rows that an import or the playground adds at the same time. A row replaces
    the row of the same image from the playground or a session.
    """
    kept: list[dict[str, object]] = []
    with locked(run.import_lock):
        if run.images_table.exists():
            paths = {row["path"] for row in rows}
            drawn = {row["image_id"] for row in rows}
            kept = [
                row
                for row in read_table(run.images_table, IMAGES).to_pylist()
                if row["path"] not in paths
                and not (row["origin"] in (PLAYGROUND, SESSION) and row["image_id"] in drawn)
            ]
        write_table(pa.Table.from_pylist([*kept, *rows], schema=IMAGES), IMAGES, run.images_table)
    return len(kept) + len(rows)


def _write_prompts(run: RunFolder, prompts: Mapping[str, str | None], *, known: bool) -> None:
    """Write the prompts after the prompts of an earlier list; `known` prompts are written again."""
    earlier = []
    if run.prompts_table.exists():
        earlier = read_table(run.prompts_table, PROMPTS).to_pylist()
    there = {row["prompt"] for row in earlier}
    rows = [
        {"prompt_id": prompt_id(prompt), "prompt": prompt, "category": category, "split": None}
        for prompt, category in prompts.items()
        if known or prompt not in there
    ]
    if rows:
        kept = [row for row in earlier if not known or row["prompt"] not in prompts]
        write_table(pa.Table.from_pylist(kept + rows, schema=PROMPTS), PROMPTS, run.prompts_table)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    parser.add_argument(
        "--round",
        type=int,
        dest="to_round",
        metavar="K",
        help="the present round, or the next one (default: the present one)",
    )
    meaning = (
        "in a round after the first: the method whose model of the round before draws, or a mix, "
        "such as rwl*0.5+dpok*0.5"
    )
    add_method(parser, meaning, required=False, kind=_method_or_mix)


def _method_or_mix(word: str) -> str:
    """Return a method, or the name of a mix as `str(Mix)` gives it."""
    mix = read_mix("METHOD", word, METHODS)
    return str(mix) if is_mix(word) else word
