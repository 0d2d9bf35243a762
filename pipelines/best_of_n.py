"""Stage `best-of-n`: draws N new pictures a prompt and picks the best by the reward (Lee et al. 2023, arXiv 2302.12192).

It needs no training, but N times the time for every picture; it is the baseline that a tuned model has to beat.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from data.runs import RunFolder
from data.schema import write_table
from finetune.reward_fn import score
from pipelines.config import Settings
from pipelines.images import (
    BEST_OF_SEEDS,
    ImagesConfig,
    Planned,
    draw_missing,
    prompts_of,
    seeded,
    weights_hash,
)
from pipelines.models import device_of, open_model, open_reward
from pipelines.pictures import load_pictures, save_sheet

TABLE, SHEET, MADE_BY = "best_of_n.parquet", "sheet.png", "made_by.json"
SHEET_PROMPTS, SHEET_COLUMNS = 24, 16
CANDIDATES = pa.schema(
    [
        pa.field("prompt", pa.string(), False, {"description": "the text that it was drawn for"}),
        pa.field(
            "path",
            pa.string(),
            False,
            {"description": "the picture's file, relative to this table"},
        ),
        pa.field("image_id", pa.string(), False, {"description": "SHA-256 of the picture's file"}),
        pa.field("seed", pa.int64(), False, {"description": "the seed that it was drawn with"}),
        pa.field(
            "score",
            pa.float32(),
            False,
            {"description": "probability that a rater calls it good for the prompt"},
        ),
        pa.field("rank", pa.int32(), False, {"description": "1 for the best of its prompt"}),
        pa.field(
            "picked",
            pa.bool_(),
            False,
            {"description": "whether it is among the best that were kept, and in `best/`"},
        ),
    ]
)


def by_reward(rewards: Sequence[float], n: int) -> list[list[int]]:
    """For each `n` candidates in a row their indices, the highest reward first, the earlier one among equals."""
    return [
        sorted(range(start, start + n), key=lambda i: -rewards[i])
        for start in range(0, len(rewards), n)
    ]


def main(
    run: RunFolder, settings: Settings, *, reward: Path | None, n: int, keep: int, out: Path | None
) -> None:
    """Draws what is missing, then writes the table of all candidates, the picked ones to `best/`, and a contact sheet."""
    if n < 1:
        raise PictuneError(f"--n {n}: draw at least one picture a prompt, as N=16 does")
    if not 1 <= keep <= n:
        raise PictuneError(f"--keep {keep}: pick at least one of --n {n} and at most all")
    folder, images = out or run.root / "best-of-n", settings.table("images", ImagesConfig)
    prompts = list(prompts_of(settings.run))
    reward_fn = open_reward(reward or run.reward_dir, settings.run)
    _check_same(folder, settings)
    planned = seeded(prompts, n, settings.run.seed, offset=BEST_OF_SEEDS)
    candidates = folder / "candidates"
    draw_missing(
        open_model(settings.run, precision=images.precision),
        planned,
        candidates,
        images,
        title="best of n",
    )
    rewards: list[float] = []
    for start in tqdm(
        range(0, len(planned), images.batch), desc="score", unit="batch", disable=None
    ):
        some = planned[start : start + images.batch]
        pictures = load_pictures([candidates / one.file_name for one in some]).to(
            device_of(settings.run)
        )
        rewards += score(reward_fn, pictures, [one.prompt for one in some]).tolist()
    ranked = by_reward(rewards, n)
    _write_best(folder, planned, ranked, keep)
    rows = [
        _row(folder, planned[i], rewards[i], rank, picked=rank <= keep)
        for order in ranked
        for rank, i in enumerate(order, start=1)
    ]
    write_table(pa.Table.from_pylist(rows, schema=CANDIDATES), CANDIDATES, folder / TABLE)
    best = sum(rewards[i] for order in ranked for i in order[:keep]) / (keep * len(prompts))
    print(
        f"best-of-n: {keep * len(prompts)} of {len(planned)} pictures in {folder / 'best'},",
        end=" ",
    )
    print(f"mean score {best:.3f}, of all {sum(rewards) / len(rewards):.3f}")


def _check_same(folder: Path, settings: Settings) -> None:
    """Candidates of an earlier call are kept, so they must be of the same model, sampler and seed."""
    now: dict[str, Any] = {
        "model_hash": weights_hash(settings.run.model),
        "seed": settings.run.seed,
    }
    now["images"] = settings.table("images", ImagesConfig).model_dump(
        exclude={"per_prompt", "per_focus_prompt", "batch"}
    )
    if not (folder / MADE_BY).exists():
        write_json(folder / MADE_BY, now)
    elif json.loads((folder / MADE_BY).read_text(encoding="utf-8")) != now:
        raise PictuneError(
            f"{folder}: its pictures were drawn by another model, sampler or seed; give another --out, or remove it"
        )


def _write_best(
    folder: Path, planned: Sequence[Planned], ranked: Sequence[Sequence[int]], keep: int
) -> None:
    """The picked pictures alone, and a sheet with a row for each prompt, the best on the left."""
    names = {planned[i].file_name for order in ranked for i in order[:keep]}
    for old in (folder / "best").glob("*.png"):
        if old.name not in names:
            old.unlink()  # of an earlier call
    for name in sorted(names):
        with write_atomically(folder / "best" / name) as temporary:
            shutil.copyfile(folder / "candidates" / name, temporary)
    rows = [
        [folder / "candidates" / planned[i].file_name for i in order[:SHEET_COLUMNS]]
        for order in ranked[:SHEET_PROMPTS]
    ]
    save_sheet([load_pictures(row) for row in rows], folder / SHEET)


def _row(folder: Path, one: Planned, score: float, rank: int, *, picked: bool) -> dict[str, object]:
    path = folder / "candidates" / one.file_name
    place = {
        "prompt": one.prompt,
        "path": path.relative_to(folder).as_posix(),
        "image_id": sha256_of(path),
        "seed": one.seed,
    }
    return place | {"score": score, "rank": rank, "picked": picked}
