"""The user's own pairs of image and text, which a training stays close to."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ValidationError

from data.errors import PictuneError
from data.files import sha256_of

PAIRS_FILE = "metadata.jsonl"


class Pair(BaseModel, frozen=True):
    """One line of `metadata.jsonl`; other keys of it are not read."""

    file_name: str
    text: str


def pairs_hash(folder: Path) -> str:
    """Return SHA-256 over the texts and images of the user's pairs, in their order.

    Raises:
        PictuneError: as of `read_pairs`.
    """
    digest = hashlib.sha256()
    for pair in read_pairs(folder):
        digest.update(f"{sha256_of(folder / pair.file_name)} {pair.text}\n".encode())
    return digest.hexdigest()


def read_pairs(folder: Path) -> list[Pair]:
    """Return the lines of the folder's `metadata.jsonl`.

    Raises:
        PictuneError: there are none, or one is wrong.
    """
    file = folder / PAIRS_FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PictuneError(
            f"{file}: cannot be read; set pretraining_pairs to a folder of images that has it"
        ) from error
    pairs = [
        _pair(file, number, line) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not pairs:
        raise PictuneError(f"{file}: is empty; write one line for each image")
    return pairs


def _pair(file: Path, number: int, line: str) -> Pair:
    try:
        pair = Pair.model_validate_json(line)
    except ValidationError as error:
        wanted = '{"file_name": "a.png", "text": "A cat."}'
        raise PictuneError(f"{file}:{number}: not a pair; write it as {wanted}") from error
    if not (file.parent / pair.file_name).is_file():
        raise PictuneError(
            f"{file}:{number}: {pair.file_name} is not in the folder; add it or remove the line"
        )
    return pair
