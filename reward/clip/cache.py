"""Embeddings on disk, shared between runs, so that each image or prompt is encoded once.

One SQLite file for each space of embeddings. Each row has the key (SHA-256 of the image or prompt),
the vector, and a checksum of both. Several processes may read and write at once, and the folder may
be deleted at any time: every call opens the file and closes it again. A killed process loses at
most the batch that it was writing. A row whose checksum is wrong counts as missing.
"""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from reward.dataset import Mask, Numbers

KEYS_PER_QUERY = 500
LOCK_SECONDS = 60.0
"""Time to wait for other processes that are writing."""

PAGE_BYTES = 16_384
"""Size of a database page. It holds several vectors, so little space is wasted."""

_CREATE = """CREATE TABLE IF NOT EXISTS embeddings
    (key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL)"""
_SELECT = "SELECT key, vector, checksum FROM embeddings WHERE key IN"


class EmbeddingCache:
    """The embeddings in `folder`, which is created with the first embedding; counts its use.

    A file that cannot be read or written does not stop the work: embeddings are computed, and
    `failure` is the reason why they are not stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = 0
        """Number of embeddings that were read."""
        self.stored = 0
        """Number of embeddings that were stored."""
        self.damaged = 0
        """Number of rows with a wrong checksum; these count as missing."""
        self.failure: str | None = None
        """Reason why embeddings are no longer stored; None if they are."""

    def read(self, space: str, keys: Sequence[bytes], dim: int) -> tuple[Numbers, Mask]:
        """Return the vectors [len(keys), dim] of distinct `keys`, and a mask [len(keys)].

        The mask is false for keys without a stored vector; their rows are 0.
        """
        vectors, known = np.zeros((len(keys), dim), np.float32), np.zeros(len(keys), np.bool_)
        path = self._path(space, dim)
        if not path.exists():
            return vectors, known
        row_of = {key: row for row, key in enumerate(keys)}
        with self._noting_failure(path), _connected(path) as database:
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                query = f"{_SELECT} ({marks})"
                for key, vector, checksum in database.execute(query, some):
                    if len(vector) != 4 * dim or zlib.crc32(key + vector) != checksum:
                        self.damaged += 1
                        continue
                    vectors[row_of[key]] = np.frombuffer(vector, "<f4")
                    known[row_of[key]] = True
        self.found += int(known.sum())
        return vectors, known

    def append(self, space: str, keys: Sequence[bytes], vectors: Numbers) -> None:
        """Store `vectors` [len(keys), dim] of `keys`."""
        if self.failure is not None:
            return
        blobs = [vector.astype("<f4").tobytes() for vector in vectors]
        rows = [(key, blob, zlib.crc32(key + blob)) for key, blob in zip(keys, blobs, strict=True)]
        path = self._path(space, vectors.shape[1])
        with self._noting_failure(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _connected(path) as database, database:  # the inner context commits
                database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
            self.stored += len(keys)

    def _path(self, space: str, dim: int) -> Path:
        return self.folder / f"{space}-{dim}.sqlite"

    @contextmanager
    def _noting_failure(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self.failure = (
                f"{path}: embeddings are not kept for the next run ({reason}); free disk space, "
                "check who may write there, or delete the file"
            )


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute(_CREATE)
        yield database
