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
from pipelines.run.model_hashes import weights_hash
from pipelines.run.prompts import prompts_of
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings

TABLE, DRAWN_BY = "best_of_n.parquet", "drawn_by.json"
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
    """Draw missing images, then write the table of all candidates, and the best images.

    Raises:
        PictuneError: there is no trained reward, or the folder belongs to another model or sampler.
    """
    if n < 1:
        raise PictuneError(f"--n {n}: draw at least one image a prompt, as N=16 does")
    if not 1 <= keep <= n:
        raise PictuneError(f"--keep {keep}: pick at least one of --n {n} and at most all")
    folder, trained = out or run.root / "best-of-n", reward or with_reward(run).reward_dir
    planned = seeded(prompts_of(settings.run), n, settings.run.seed, offset=BEST_OF_SEEDS)
    paths = [folder / "candidates" / one.file_name for one in planned]
    with launched(settings.run.device) as processes:
        rewards = _draw_and_score(settings, trained, folder, planned, processes=processes)
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
    processes: Processes,
) -> list[float]:
    """Draw the missing images, and score all of them.

    Return the scores of all candidates, in the first process.
    """
    drawn_by, record = _drawn_by(settings), folder / DRAWN_BY
    if record.exists() and json.loads(record.read_text("utf-8")) != drawn_by:
        raise PictuneError(
            f"{folder}: its images were drawn by another model, sampler, size, type of weights "
            "or seed; give another --out, or remove it"
        )
    with ends_at_once():
        from finetune.learning.reward_fn import score  # noqa: PLC0415 - loads torch
        from pipelines.run.drawing import Batches, Drawer  # noqa: PLC0415 - loads torch
        from pipelines.run.image_io import load_images  # noqa: PLC0415 - loads torch
        from pipelines.run.models import as_reward_fn, device_of, open_reward_model  # noqa: PLC0415 - loads torch

    candidates, device = folder / "candidates", device_of(settings.run)
    reward_fn = as_reward_fn(open_reward_model(reward, settings.run))
    drawer = Drawer.open(settings, processes)
    processes.wait()  # until all have read the record
    if processes.is_first:
        write_json(record, drawn_by)
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


def _write_best(folder: Path, ranked: Sequence[Sequence[Path]], keep: int) -> None:
    """Write the picked images, and remove those of an earlier call."""
    picked = {path.name: path for order in ranked for path in order[:keep]}
    for old in (folder / "best").glob("*.png"):
        if old.name not in picked:
            old.unlink()
    for name, path in sorted(picked.items()):
        with write_atomically(folder / "best" / name) as temporary:
            shutil.copyfile(path, temporary)


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
