"""Embeddings on disk, shared between runs: what one run has encoded, no other encodes again.

One file for each space of embeddings, of records of fixed length: the key (SHA-256 of what was encoded), the vector and a checksum of
both. Files are mapped into memory to read and only ever appended to, under a lock on the file, so that several processes may read and
write at once. A record that is cut short or damaged counts as not there; the last of several with one key counts.
"""

import fcntl
import os
import zlib
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reward.dataset import Mask, Numbers

KEY_BYTES = 32
CHECKSUM_BYTES = 4
ROWS_AT_A_TIME = 4096


class EmbeddingCache:
    """The embeddings in `folder`, which is made when the first are stored; counts what it was good for.

    A file that cannot be read or written never stops the work: the embeddings are computed, and `failure` says why they are not stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = 0
        """Embeddings that were read."""
        self.stored = 0
        """Embeddings that were added."""
        self.damaged = 0
        """Records whose checksum is wrong; what they were of was asked for again."""
        self.failure: str | None = None
        """Why nothing is stored any more; None while all is well."""
        self._indexes: dict[Path, tuple[int, dict[bytes, int]]] = {}
        """By file, how many of its records were looked at, and the record of each key among them."""

    def read(self, space: str, keys: Sequence[bytes], dim: int) -> tuple[Numbers, Mask]:
        """Vectors [len(keys), dim] of distinct `keys` in `space`, and for which of them there is one [len(keys)]; the others are 0."""
        vectors, known = np.zeros((len(keys), dim), np.float32), np.zeros(len(keys), np.bool_)
        path = self._path(space, dim)
        records = self._records(path, _record_bytes(dim))
        index = self._index_of(path, records)
        place = {row: index[key] for row, key in enumerate(keys) if key in index}
        rows, numbers = np.fromiter(place, np.int64), np.fromiter(place.values(), np.int64)
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            some = rows[start : start + ROWS_AT_A_TIME]
            found = records[numbers[start : start + ROWS_AT_A_TIME]]
            whole = np.array(
                [_is_whole(record, keys[row]) for record, row in zip(found, some, strict=True)],
                np.bool_,
            )
            vectors[some[whole]] = np.ascontiguousarray(
                found[whole, KEY_BYTES:-CHECKSUM_BYTES]
            ).view("<f4")
            known[some[whole]] = True
        self.found += int(known.sum())
        self.damaged += len(rows) - int(known.sum())
        return vectors, known

    def append(self, space: str, keys: Sequence[bytes], vectors: Numbers) -> None:
        """Stores `vectors` [len(keys), dim] of `keys`."""
        if self.failure is not None:
            return
        bodies = [
            key + vector.astype("<f4").tobytes() for key, vector in zip(keys, vectors, strict=True)
        ]
        records = b"".join(
            body + zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "little") for body in bodies
        )
        path = self._path(space, vectors.shape[1])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileIO(path, "ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _append_whole(file, records, _record_bytes(vectors.shape[1]))
        except OSError as error:
            self._give_up(path, error)
        else:
            self.stored += len(keys)

    def _records(self, path: Path, size: int) -> NDArray[np.uint8]:
        """The whole records, of `size` bytes, of a file, mapped into memory, [records, size]."""
        nothing = np.zeros((0, size), np.uint8)
        try:
            count = path.stat().st_size // size
            return np.memmap(path, np.uint8, "r", shape=(count, size)) if count else nothing
        except FileNotFoundError:
            return nothing
        except OSError as error:
            self._give_up(path, error)
            return nothing

    def _index_of(self, path: Path, records: NDArray[np.uint8]) -> dict[bytes, int]:
        """The last record of each key; only what was added since the last time is looked at."""
        seen, index = self._indexes.get(path, (0, {}))
        if len(records) < seen:  # somebody removed the file, and another is there
            seen, index = 0, {}
        added = np.ascontiguousarray(records[seen:, :KEY_BYTES]).tobytes()
        index.update(
            {
                added[i * KEY_BYTES : (i + 1) * KEY_BYTES]: seen + i
                for i in range(len(records) - seen)
            }
        )
        self._indexes[path] = len(records), index
        return index

    def _path(self, space: str, dim: int) -> Path:
        return self.folder / f"{space}-{dim}.f32"

    def _give_up(self, path: Path, error: OSError) -> None:
        self.failure = f"{path}: embeddings are not kept for the next run ({error.strerror}); free disk space or check who may write there"


def _record_bytes(dim: int) -> int:
    return KEY_BYTES + 4 * dim + CHECKSUM_BYTES


def _is_whole(record: NDArray[np.uint8], key: bytes) -> bool:
    content = record.tobytes()
    checksum = int.from_bytes(content[-CHECKSUM_BYTES:], "little")
    return content.startswith(key) and zlib.crc32(content[:-CHECKSUM_BYTES]) == checksum


def _append_whole(file: FileIO, records: bytes, record_bytes: int) -> None:
    """Appends to a file that is locked; one who was killed may have left a part of a record there, and a full disk ends in one.

    Whole records stay, since a reader may have mapped them already.
    """
    _cut(file, record_bytes)
    view = memoryview(records)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError:
        _cut(file, record_bytes)
        raise


def _cut(file: FileIO, record_bytes: int) -> None:
    size = file.seek(0, os.SEEK_END)
    if size % record_bytes:
        file.truncate(size - size % record_bytes)
