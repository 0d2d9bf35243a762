"""Stage `score`: score images for prompts with a trained reward; writes a Parquet table.

Images that cannot be read are omitted, each with a line that says why. Each distinct image and
prompt is encoded once. Several processes share the encoding; the first alone scores and writes.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of
from data.runs import RunFolder
from data.schema import read_table, write_batches
from finetune.processes import Processes, launched
from pipelines.config import Settings
from pipelines.flags import stands_for_no_setting
from pipelines.models import open_cache, open_reward_model
from pipelines.prompts import read_prompts
from pipelines.rounds import with_reward
from pipelines.sharing import encode_in_shares
from reward.clip.cache import EmbeddingCache
from reward.embedding import embed_prompts, embed_readable
from reward.model import RewardModel

FILE = "scores.parquet"
"""Name of the table, unless `--out` names another."""
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
ENCODE_BATCH = 64
"""Images encoded at a time."""
ROWS = 65_536
"""Images and prompts scored at a time."""

COLUMNS = "give a table with the columns path and prompt"
PAIRS = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("path", "prompt")])
"""The columns that a table of images and prompts must have."""


def _column(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, False, {"description": meaning})


SCORES = pa.schema(
    [
        _column("image_id", pa.string(), "SHA-256 of the image's file"),
        _column("path", pa.string(), "the image's file, relative to the folder that was scored"),
        _column("prompt", pa.string(), "the text that it was scored for"),
        _column("score", pa.float32(), "probability that a rater calls it good for the prompt"),
        _column(
            "std",
            pa.float32(),
            "standard deviation of the ensemble members' own probabilities",
        ),
    ]
)
"""The columns of the table that is written."""


@dataclass(frozen=True, eq=False)
class Request:
    """Pairs of an image and a prompt that are to be scored."""

    paths: list[str]
    """Distinct files, relative to the folder."""
    prompts: list[str]
    """Distinct prompts."""
    path: NDArray[np.int64]
    """Index in `paths` of each pair [N]."""
    prompt: NDArray[np.int64]
    """Index in `prompts` of each pair [N]."""

    @classmethod
    def read(cls, folder: Path, file: Path) -> "Request":
        """Read the rows of a table with `path` and `prompt`, as CSV or Parquet.

        Any other file is a text file with one prompt a line: each image of the folder is paired
        with each prompt.

        Raises:
            PictuneError: the file cannot be read or is empty, or the folder holds no image.
        """
        if file.suffix in (".csv", ".parquet"):
            (paths, path), (prompts, prompt) = (_numbered(column) for column in _read_pairs(file))
            return cls(paths, prompts, path, prompt)
        prompts, paths = read_prompts(file), _images_in(folder)
        rows = np.arange(len(paths) * len(prompts))
        return cls(paths, prompts, rows // len(prompts), rows % len(prompts))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage; `--prompts` belongs to the images, not to the run."""
    parser.add_argument(
        "--reward",
        type=Path,
        metavar="DIR",
        help="the folder of a trained reward (default: the run's)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="the folder with the images (default: the run's)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the table to write (default: scores.parquet beside the reward)",
    )
    stands_for_no_setting(parser, "prompts")


def main(
    run: RunFolder,
    settings: Settings,
    *,
    reward: Path | None,
    images: Path | None,
    prompts: str | None,
    out: Path | None,
) -> None:
    """Write the scores; without `images` and `prompts`, those of the run's images and prompts.

    Raises:
        PictuneError: an input is missing or cannot be read.
    """
    if images is not None and prompts is None:
        raise PictuneError(
            "--images: needs --prompts, a text file with one prompt a line "
            "or a table with the columns path and prompt"
        )
    if prompts is None and not run.images_table.exists():
        raise PictuneError(
            f"{run.root}: has no images yet; run `make images RUN={run.root.name}`, "
            "or give --images and --prompts"
        )
    folder = images or (run.root if prompts is None else run.images_dir)
    trained = reward or with_reward(run).reward_dir
    target = out or trained / FILE
    request = Request.read(folder, run.images_table if prompts is None else Path(prompts))
    cache = open_cache(run)
    with launched(settings.run.device) as processes:
        model = open_reward_model(trained, settings.run)
        known = _embed_images(model, folder, request.paths, cache, processes)
    if known is None:
        return
    read = len(known.image_ids)
    if not read:
        raise PictuneError(
            f"{folder}: none of its {len(request.paths)} images can be read; put the files back"
        )
    rows = write_batches(_score(model, request, known, cache), SCORES, target)
    skipped = len(request.paths) - read
    print(f"score: {rows} scores of {read} images in {target}, {skipped} skipped")


@dataclass(frozen=True, eq=False)
class _Images:
    """The images that can be read."""

    image_ids: dict[str, str]
    """Image id by path."""
    row: dict[str, int]
    """Row in `embeddings` of each image id."""
    embeddings: torch.Tensor


def _embed_images(
    model: RewardModel,
    folder: Path,
    paths: Sequence[str],
    cache: EmbeddingCache,
    processes: Processes,
) -> _Images | None:
    """Encode files, those with the same bytes once; write a line for each that cannot be read.

    Of several processes each encodes a share, and all but the first return None.
    """

    def skip(error: PictuneError) -> None:
        if processes.is_first:
            tqdm.write(f"skipped: {error}", file=sys.stderr)

    image_ids: dict[str, str] = {}
    for path in paths:
        try:
            image_ids[path] = sha256_of(folder / path)
        except OSError as error:
            skip(PictuneError(f"{folder / path}: not a readable image ({error.strerror})"))
    first = {image_id: path for path, image_id in reversed(image_ids.items())}
    embed = partial(
        embed_readable,
        [folder / path for path in first.values()],
        model.backbone,
        batch_size=ENCODE_BATCH,
        cache=cache,
    )
    track = encode_in_shares(lambda own: embed(skipped=_ignore, track=own), processes)
    if not processes.is_first:
        return None
    embeddings, rows = embed(skipped=skip, track=track)
    distinct = list(first)
    row = {distinct[i]: number for number, i in enumerate(rows)}
    return _Images(
        {path: image_id for path, image_id in image_ids.items() if image_id in row}, row, embeddings
    )


def _ignore(error: PictuneError) -> None:
    """Do nothing: the first process says in the end which images cannot be read."""


@torch.no_grad()
def _score(
    model: RewardModel, request: Request, known: _Images, cache: EmbeddingCache
) -> Iterator[pa.Table]:
    texts = embed_prompts(request.prompts, model.backbone, cache=cache)
    # the row of each path's embedding, -1 for an image that cannot be read
    at = np.array([known.row.get(known.image_ids.get(path, ""), -1) for path in request.paths])
    readable = np.flatnonzero(at[request.path] >= 0)
    for start in range(0, len(readable), ROWS):
        chosen = readable[start : start + ROWS]
        path, prompt = request.path[chosen], request.prompt[chosen]
        score, std = model.score_features_with_std(
            image_features=known.embeddings[torch.from_numpy(at[path])],
            text_embeddings=texts[torch.from_numpy(prompt)],
        )
        paths = [request.paths[i] for i in path]
        columns = {
            "image_id": [known.image_ids[one] for one in paths],
            "path": paths,
            "prompt": [request.prompts[i] for i in prompt],
        }
        yield pa.table(
            columns | {"score": score.cpu().numpy(), "std": std.cpu().numpy()}, schema=SCORES
        )


def _images_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise PictuneError(f"{folder}: no such folder; give the folder with the images as --images")
    found = (
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    paths = sorted(
        path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)
    )
    if not paths:
        known = ", ".join(sorted(SUFFIXES))
        raise PictuneError(
            f"{folder}: holds no image ({known}); give the folder with the images as --images"
        )
    return paths


def _read_pairs(file: Path) -> tuple[list[str], list[str]]:
    """Return the paths and the prompts of a table."""
    if file.suffix == ".parquet":
        try:
            pairs = read_table(file, PAIRS)
        except PictuneError as error:
            raise PictuneError(f"{str(error).rpartition('; ')[0]}; {COLUMNS}") from error
        return pairs["path"].to_pylist(), pairs["prompt"].to_pylist()
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise PictuneError(f"{file}: cannot be read as CSV ({reason}); {COLUMNS}") from error
    missing = [name for name in PAIRS.names if name not in table.columns]
    if missing or table.empty:
        lacking = f"no column {missing[0]}" if missing else "no rows"
        raise PictuneError(f"{file}: {lacking}; {COLUMNS}")
    return table["path"].tolist(), table["prompt"].tolist()


def _numbered(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct texts, and for each text its index among them."""
    distinct = list(dict.fromkeys(texts))
    number = {text: i for i, text in enumerate(distinct)}
    return distinct, np.array([number[text] for text in texts], np.int64)
