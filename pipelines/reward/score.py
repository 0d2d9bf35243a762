"""Stage `score`: score images for prompts with a trained reward; writes a Parquet table.

Images that cannot be read are skipped, each with a line on the reason. Several processes share the
encoding; the first alone scores and writes. A table with the same inputs is kept.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.errors import PictuneError
from data.files import sha256_of
from data.runs import RunFolder
from data.schema import write_batches
from finetune.model.processes import launched
from pipelines.flags import add_path, stands_for_no_setting
from pipelines.interruption import ends_at_once
from pipelines.reward.score_request import (
    FILE,
    MADE_FROM,
    SCORES,
    Request,
    are_made_from,
    maps_folder,
    rows_made_from,
)
from pipelines.run.model_hashes import content_hash
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage; `--prompts` belongs to the images, not to the run."""
    add_path(parser, "--reward", "DIR", "the folder of a trained reward (default: the run's)")
    add_path(parser, "--images", "DIR", "the folder with the images (default: the run's)")
    meaning = "the table to write (default: scores.parquet beside the reward)"
    add_path(parser, "--out", "FILE", meaning)
    meaning = "also write maps of where raters would mark each image, beside the table"
    parser.add_argument("--maps", action="store_true", help=meaning)
    stands_for_no_setting(parser, "prompts")


def main(
    run: RunFolder,
    settings: Settings,
    *,
    reward: Path | None,
    images: Path | None,
    prompts: str | None,
    out: Path | None,
    maps: bool = False,
) -> None:
    """Write the scores; without `images` and `prompts`, score the run's images for their prompts.

    Raises:
        PictuneError: an input is missing or cannot be read.
    """
    if images is not None and prompts is None:
        wanted = "a text file with one prompt a line or a table with the columns path and prompt"
        raise PictuneError(f"--images: needs --prompts, {wanted}")
    if prompts is None and not run.images_table.exists():
        raise PictuneError(
            f"{run.root}: has no images yet; run `make images RUN={run.root.name}`, "
            "or give --images and --prompts"
        )
    folder = images or (run.root if prompts is None else run.images_dir)
    trained = reward or with_reward(run).reward_dir
    target = out or trained / FILE
    request = Request.read(folder, run.images_table if prompts is None else Path(prompts))
    with launched(settings.run.device) as processes:
        image_ids, unreadable = _image_ids(folder, request.paths)
        made_from = request.digest(image_ids, content_hash(str(trained)))
        done = rows_made_from(target, made_from)
        is_done = done is not None and (not maps or are_made_from(maps_folder(target), made_from))
        if processes.skips(is_done, f"score: done, {done} scores in {target}"):
            return
        with ends_at_once():
            from pipelines.reward.maps import write_maps  # noqa: PLC0415 - loads torch
            from pipelines.reward.scoring import embed, scores  # noqa: PLC0415 - loads torch
            from pipelines.run.models import open_cache, open_reward_model  # noqa: PLC0415 - loads torch

        cache, model = open_cache(run), open_reward_model(trained, settings.run)
        if processes.is_first:
            for error in unreadable:
                print(f"skipped: {error}", file=sys.stderr)
        found = embed(model, folder, image_ids, cache, processes)
    if found is None:
        return
    features, row = found
    rows = [row.get(image_ids.get(path, ""), -1) for path in request.paths]
    read = len(rows) - rows.count(-1)
    if not read:
        raise PictuneError(
            f"{folder}: none of its {len(rows)} images can be read; put the files back"
        )
    scored = scores(model, request, rows, features, image_ids=image_ids, cache=cache)
    count = write_batches(scored, SCORES.with_metadata({MADE_FROM: made_from}), target)
    print(f"score: {count} scores of {read} images in {target}, {rows.count(-1)} skipped")
    if maps:
        count = write_maps(model, _pairs(request, folder, rows), maps_folder(target), made_from)
        print(f"score: {count} maps in {maps_folder(target)}")


def _pairs(request: Request, folder: Path, rows: Sequence[int]) -> list[tuple[Path, str]]:
    """Return the images that could be read, each with its prompt; other images have row -1."""
    pairs = zip(request.path, request.prompt, strict=True)
    return [(folder / request.paths[p], request.prompts[q]) for p, q in pairs if rows[p] >= 0]


def _image_ids(folder: Path, paths: Sequence[str]) -> tuple[dict[str, str], list[PictuneError]]:
    """Return the hash of each readable file, by path, and the errors of the other files."""
    image_ids: dict[str, str] = {}
    unreadable: list[PictuneError] = []
    for path in paths:
        try:
            image_ids[path] = sha256_of(folder / path)
        except OSError as error:
            unreadable.append(
                PictuneError(f"{folder / path}: not a readable image ({error.strerror})")
            )
    return image_ids, unreadable
