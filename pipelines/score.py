"""Stage `score`: what a trained reward says of pictures for prompts, as a Parquet table.

Pictures that cannot be read are left out, each with a line that says why. Each distinct picture and prompt is encoded once.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from pipelines.config import Settings
from pipelines.images import read_prompts
from pipelines.models import embedding_bar, open_cache, open_reward_model
from reward.cache import EmbeddingCache
from reward.examples import embed_prompts
from reward.model import RewardModel
from reward.scoring import embed_readable

FILE = "scores.parquet"
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
ENCODE_BATCH = 64
"""Pictures encoded at a time."""
ROWS = 65_536
"""Pictures and prompts scored at a time."""

PAIRS = pa.schema(
    [pa.field("path", pa.string(), nullable=False), pa.field("prompt", pa.string(), nullable=False)]
)
"""The columns that a table of pictures and prompts must have."""
SCORES = pa.schema(
    [
        pa.field("image_id", pa.string(), False, {"description": "SHA-256 of the picture's file"}),
        pa.field(
            "path",
            pa.string(),
            False,
            {"description": "the picture's file, relative to the folder that was scored"},
        ),
        pa.field("prompt", pa.string(), False, {"description": "the text that it was scored for"}),
        pa.field(
            "score",
            pa.float32(),
            False,
            {"description": "probability that a rater calls it good for the prompt"},
        ),
        pa.field(
            "std",
            pa.float32(),
            False,
            {"description": "standard deviation of the ensemble members' own probabilities"},
        ),
    ]
)


@dataclass(frozen=True, eq=False)
class Request:
    """Which pictures are to be scored for which prompts."""

    paths: list[str]
    """Distinct files, relative to the folder."""
    prompts: list[str]
    """Distinct prompts."""
    path: NDArray[np.int64]
    """[N] into `paths`."""
    prompt: NDArray[np.int64]
    """[N] into `prompts`."""

    @classmethod
    def read(cls, folder: Path, file: Path) -> "Request":
        """The rows of a table with `path` and `prompt` (CSV or Parquet), or each picture of the folder for each line of a text file.

        Raises:
            PictuneError: the file cannot be read or says nothing, or the folder holds no picture.
        """
        if file.suffix in (".csv", ".parquet"):
            (paths, path), (prompts, prompt) = (_numbered(column) for column in _read_pairs(file))
            return cls(paths, prompts, path, prompt)
        prompts, paths = read_prompts(file), _pictures_in(folder)
        rows = np.arange(len(paths) * len(prompts))
        return cls(paths, prompts, rows // len(prompts), rows % len(prompts))


def main(
    run: RunFolder,
    settings: Settings,
    *,
    reward: Path | None,
    images: Path | None,
    prompts: Path | None,
    out: Path | None,
) -> None:
    """Writes the scores; without `images` and `prompts`, those of the run's own pictures for their own prompts."""
    if images is not None and prompts is None:
        raise PictuneError(
            "--images: needs --prompts, a text file with one prompt a line or a table with the columns path and prompt"
        )
    if prompts is None and not run.images_table.exists():
        raise PictuneError(
            f"{run.root}: has no pictures yet; run `make images RUN={run.root.name}`, or give --images and --prompts"
        )
    folder, out = (
        images or (run.root if prompts is None else run.images_dir),
        out or (reward or run.reward_dir) / FILE,
    )
    request = Request.read(folder, prompts or run.images_table)
    model = open_reward_model(reward or run.reward_dir, settings.run)
    cache = open_cache(run)
    known = _embed_pictures(model, folder, request.paths, cache)
    if not known.image_ids:
        raise PictuneError(
            f"{folder}: none of its {len(request.paths)} pictures can be read; put the files back"
        )
    rows = write_batches(_score(model, request, known, cache), SCORES, out)
    print(
        f"score: {rows} scores of {len(known.image_ids)} pictures in {out}, {len(request.paths) - len(known.image_ids)} skipped"
    )


@dataclass(frozen=True, eq=False)
class _Pictures:
    """The pictures that can be read."""

    image_ids: dict[str, str]
    """By path."""
    row: dict[str, int]
    """Of each image id in `embeddings`."""
    embeddings: torch.Tensor


def _embed_pictures(
    model: RewardModel, folder: Path, paths: Sequence[str], cache: EmbeddingCache
) -> _Pictures:
    """Files with the same bytes are encoded once; of each that cannot be read a line says why."""

    def skip(error: PictuneError) -> None:
        tqdm.write(f"skipped: {error}", file=sys.stderr)

    image_ids: dict[str, str] = {}
    for path in paths:
        try:
            image_ids[path] = sha256_of(folder / path)
        except OSError as error:
            skip(PictuneError(f"{folder / path}: not a readable picture ({error.strerror})"))
    first = {image_id: path for path, image_id in reversed(image_ids.items())}
    embeddings, rows = embed_readable(
        [folder / path for path in first.values()],
        model.backbone,
        batch_size=ENCODE_BATCH,
        skipped=skip,
        track=embedding_bar,
        cache=cache,
    )
    distinct = list(first)
    row = {distinct[i]: number for number, i in enumerate(rows)}
    return _Pictures(
        {path: image_id for path, image_id in image_ids.items() if image_id in row}, row, embeddings
    )


@torch.no_grad()
def _score(
    model: RewardModel, request: Request, known: _Pictures, cache: EmbeddingCache
) -> Iterator[pa.Table]:
    texts = embed_prompts(request.prompts, model.backbone, cache=cache)
    at = np.array([known.row.get(known.image_ids.get(path, ""), -1) for path in request.paths])
    readable = np.flatnonzero(at[request.path] >= 0)
    for start in range(0, len(readable), ROWS):
        chosen = readable[start : start + ROWS]
        path, prompt = request.path[chosen], request.prompt[chosen]
        pictures, asked = (
            known.embeddings[torch.from_numpy(at[path])],
            texts[torch.from_numpy(prompt)],
        )
        score, std = model.embeddings_score_with_std(
            image_embeddings=pictures, text_embeddings=asked
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


def _pictures_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise PictuneError(
            f"{folder}: no such folder; give the folder with the pictures as --images"
        )
    found = (
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    paths = sorted(
        path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)
    )
    if not paths:
        raise PictuneError(
            f"{folder}: holds no picture ({', '.join(sorted(SUFFIXES))}); give the folder with the pictures as --images"
        )
    return paths


def _read_pairs(file: Path) -> tuple[list[str], list[str]]:
    """The paths and the prompts of a table."""
    if file.suffix == ".parquet":
        try:
            pairs = read_table(file, PAIRS)
        except PictuneError as error:
            raise PictuneError(
                f"{str(error).rpartition('; ')[0]}; give a table with the columns path and prompt"
            ) from error
        return pairs["path"].to_pylist(), pairs["prompt"].to_pylist()
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise PictuneError(
            f"{file}: cannot be read as CSV ({reason}); give a table with the columns path and prompt"
        ) from error
    missing = [name for name in PAIRS.names if name not in table.columns]
    if missing or table.empty:
        raise PictuneError(
            f"{file}: {'no column ' + missing[0] if missing else 'no rows'}; give a table with the columns path and prompt"
        )
    return table["path"].tolist(), table["prompt"].tolist()


def _numbered(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct texts, and which of them each is."""
    distinct = list(dict.fromkeys(texts))
    number = {text: i for i, text in enumerate(distinct)}
    return distinct, np.array([number[text] for text in texts], np.int64)
