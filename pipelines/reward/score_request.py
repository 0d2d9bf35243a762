"""A request to score images for prompts, and the table of the scores."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.errors import PictuneError
from data.schema import read_table, schema_of
from pipelines.run.prompts import read_prompts

FILE = "scores.parquet"
"""Default name of the table; `--out` names another."""
MADE_FROM = "made_from"
"""Key in the table's metadata for the digest of its inputs."""
MAPS_DONE = f"{MADE_FROM}.txt"
"""The last file of a folder of maps: the digest of its inputs."""
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
COLUMNS = "give a table with the columns path and prompt"
PAIRS = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("path", "prompt")])
"""The required columns of a table of images and prompts."""


SCORES = schema_of("""
image_id  string   SHA-256 of the image's file
path      string   the image's file, relative to the folder that was scored
prompt    string   the text that it was scored for
score     float32  probability that a rater calls it good for the prompt
std       float32  standard deviation of the ensemble members' own probabilities
""")
"""The columns of the output table."""


@dataclass(frozen=True, eq=False)
class Request:
    """Pairs of an image and a prompt to score."""

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
            (path, files), (prompt, texts) = map(pd.factorize, _read_pairs(file))
            return cls(list(files), list(texts), path, prompt)
        prompts, paths = [one.text for one in read_prompts(file)], _images_in(folder)
        rows = np.arange(len(paths) * len(prompts))
        return cls(paths, prompts, rows // len(prompts), rows % len(prompts))

    def digest(self, image_ids: Mapping[str, str], reward: str) -> str:
        """Return a hash of the pairs, the images (by their hashes) and the reward (by its hash)."""
        named = [self.paths, [image_ids.get(path) for path in self.paths], self.prompts, reward]
        found = hashlib.sha256(json.dumps(named).encode())
        for numbers in (self.path, self.prompt):
            found.update(numbers.tobytes())
        return found.hexdigest()


def rows_made_from(table: Path, digest: str) -> int | None:
    """Return the number of rows of a table with this digest; None for another table."""
    try:
        found = pq.read_metadata(table)
    except (OSError, pa.ArrowInvalid):
        return None  # missing or damaged
    noted = (found.metadata or {}).get(MADE_FROM.encode())
    return found.num_rows if noted == digest.encode() else None


def maps_folder(table: Path) -> Path:
    """Return the folder of the maps that belong to a table of scores."""
    return table.with_name(f"{table.stem}_maps")


def are_made_from(maps: Path, digest: str) -> bool:
    """Whether the folder has maps, all of them, of inputs with this digest."""
    done = maps / MAPS_DONE
    return done.is_file() and done.read_text() == digest


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


def _read_pairs(file: Path) -> tuple["pd.Series[str]", "pd.Series[str]"]:
    """Return the paths and the prompts of a table."""
    if file.suffix == ".parquet":
        try:
            table = read_table(file, PAIRS).to_pandas()
        except PictuneError as error:
            raise PictuneError(f"{str(error).rpartition('; ')[0]}; {COLUMNS}") from error
        return table["path"], table["prompt"]
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise PictuneError(f"{file}: cannot be read as CSV ({reason}); {COLUMNS}") from error
    missing = [name for name in PAIRS.names if name not in table.columns]
    if missing or table.empty:
        lacking = f"no column {missing[0]}" if missing else "no rows"
        raise PictuneError(f"{file}: {lacking}; {COLUMNS}")
    return table["path"], table["prompt"]
