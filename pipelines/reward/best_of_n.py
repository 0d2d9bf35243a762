"""Stage `best-of-n`: draw N new images of each prompt and pick the best by the reward.

It is the baseline for tuned models in Lee et al. 2023 (arXiv 2302.12192): it needs no training, but
N times the time for every image.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from data.runs import RunFolder
from data.schema import schema_of, write_table
from finetune.model.processes import Processes, launched
from finetune.settings.sampler import Sampler
from pipelines.evaluate.figures import by_reward
from pipelines.flags import add_path
from pipelines.interruption import ends_at_once
from pipelines.run.image_plan import BEST_OF_SEEDS, Planned, seeded
from pipelines.run.model_hashes import content_hash, weights_hash
from pipelines.run.prompts import prompts_digest, prompts_of
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings

TABLE, SHEET, MADE_BY = "best_of_n.parquet", "sheet.png", "made_by.json"
SHEET_PROMPTS, SHEET_COLUMNS = 24, 16
CANDIDATES = schema_of("""
prompt    string   the text that it was drawn for
path      string   the image's file, relative to this table
image_id  string   SHA-256 of the image's file
seed      int64    the seed that it was drawn with
score     float32  probability that a rater calls it good for the prompt
rank      int32    1 for the best of its prompt
picked    bool     whether it is among the best that were kept, and in `best/`
""")


def main(
    run: RunFolder, settings: Settings, *, reward: Path | None, n: int, keep: int, out: Path | None
) -> None:
    """Draw missing images, then write the table of all candidates, the best images, and a sheet.

    Raises:
        PictuneError: there is no trained reward, or the folder belongs to another model or sampler.
    """
    if n < 1:
        raise PictuneError(f"--n {n}: draw at least one image a prompt, as N=16 does")
    if not 1 <= keep <= n:
        raise PictuneError(f"--keep {keep}: pick at least one of --n {n} and at most all")
    folder, trained = out or run.root / "best-of-n", reward or with_reward(run).reward_dir
    prompts = list(prompts_of(settings.run))
    planned = seeded(prompts, n, settings.run.seed, offset=BEST_OF_SEEDS)
    drawn_by = _drawn_by(settings)
    picked_by = {"reward": content_hash(str(trained)), "prompts": prompts_digest(prompts)}
    made_by = drawn_by | {"picked": picked_by | {"n": n, "keep": keep}}
    paths = [folder / "candidates" / one.file_name for one in planned]
    with launched(settings.run.device) as processes:
        earlier = _made_by(folder)
        if processes.is_first and not drawn_by.items() <= (earlier or drawn_by).items():
            raise PictuneError(
                f"{folder}: its images were drawn by another model, sampler, size, type of weights "
                "or seed; give another --out, or remove it"
            )
        best = [*(folder / "best").glob("*.png")]
        files = [folder / TABLE, *paths]
        is_done = earlier == made_by and len(best) == keep * len(prompts)
        is_done = is_done and all(path.exists() for path in files)
        line = f"best-of-n: done, {len(best)} of {len(planned)} images in {folder / 'best'}"
        if processes.skips(is_done, line):
            return
        rewards = _draw_and_score(
            settings, trained, folder, planned, drawn_by=drawn_by, processes=processes
        )
        if not processes.is_first:
            return
    ranked = by_reward(rewards, n)
    _write_best(folder, [[paths[i] for i in order] for order in ranked], keep)
    rows = [
        {
            "prompt": planned[i].prompt,
            "path": paths[i].relative_to(folder).as_posix(),
            "image_id": sha256_of(paths[i]),
            "seed": planned[i].seed,
            "score": rewards[i],
            "rank": rank,
            "picked": rank <= keep,
        }
        for order in ranked
        for rank, i in enumerate(order, start=1)
    ]
    write_table(pa.Table.from_pylist(rows, schema=CANDIDATES), CANDIDATES, folder / TABLE)
    write_json(folder / MADE_BY, made_by)
    picked = [rewards[i] for order in ranked for i in order[:keep]]
    print(
        f"best-of-n: {len(picked)} of {len(planned)} images in {folder / 'best'}, "
        f"mean score {sum(picked) / len(picked):.3f}, of all {sum(rewards) / len(rewards):.3f}"
    )


def _draw_and_score(
    settings: Settings,
    reward: Path,
    folder: Path,
    planned: Sequence[Planned],
    *,
    drawn_by: dict[str, Any],
    processes: Processes,
) -> list[float]:
    """Mark the folder as unfinished, draw the missing images, and score all of them.

    Return the scores of all candidates, in the first process.
    """
    with ends_at_once():
        from finetune.learning.reward_fn import score  # noqa: PLC0415 - loads torch
        from pipelines.run.drawing import Batches, Drawer  # noqa: PLC0415 - loads torch
        from pipelines.run.image_io import load_images  # noqa: PLC0415 - loads torch
        from pipelines.run.models import as_reward_fn, device_of, open_reward_model  # noqa: PLC0415 - loads torch

    candidates, device = folder / "candidates", device_of(settings.run)
    reward_fn = as_reward_fn(open_reward_model(reward, settings.run))
    drawer = Drawer.open(settings, processes)
    if processes.is_first:
        write_json(folder / MADE_BY, drawn_by)
    drawer.draw_missing(planned, candidates, settings.table("sampler", Sampler), title="best of n")
    if not processes.is_first:
        return []

    def scores(rows: slice) -> list[float]:
        some = planned[rows]
        images = load_images([candidates / one.file_name for one in some]).to(device)
        found: list[float] = score(reward_fn, images, [one.prompt for one in some]).tolist()
        return found

    parts = Batches(drawer.batch).over(len(planned), scores, "score")
    return [reward for rewards in parts for reward in rewards]


def _drawn_by(settings: Settings) -> dict[str, Any]:
    """Return everything that determines a candidate's pixels, except its prompt and number."""
    run = settings.run
    drawn_at = run.model_dump(include={"precision", "image_size", "weights"})
    return {
        "model_hash": weights_hash(run.model),
        "seed": run.seed,
        "images": settings.table("sampler", Sampler).model_dump() | drawn_at,
    }


def _made_by(folder: Path) -> dict[str, Any]:
    """Return the folder's record of the call that wrote it; empty without a record."""
    file = folder / MADE_BY
    made_by: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return made_by


def _write_best(folder: Path, ranked: Sequence[Sequence[Path]], keep: int) -> None:
    """Write the picked images, and a sheet with a row for each prompt, best image on the left."""
    picked = {path.name: path for order in ranked for path in order[:keep]}
    for old in (folder / "best").glob("*.png"):
        if old.name not in picked:
            old.unlink()  # from an earlier call
    for name, path in sorted(picked.items()):
        with write_atomically(folder / "best" / name) as temporary:
            shutil.copyfile(path, temporary)
    from pipelines.run.image_io import load_images, save_sheet  # noqa: PLC0415 - loads torch

    rows = [load_images(order[:SHEET_COLUMNS]) for order in ranked[:SHEET_PROMPTS]]
    save_sheet(rows, folder / SHEET)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    add_path(parser, "--reward", "DIR", "the folder of a trained reward (default: the run's)")
    parser.add_argument(
        "--n", type=int, default=16, help="images drawn for each prompt (default: 16)"
    )
    parser.add_argument(
        "--keep", type=int, default=1, help="how many of them are picked (default: 1)"
    )
    add_path(parser, "--out", "DIR", "the folder to write (default: best-of-n in the run's)")
