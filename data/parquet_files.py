"""Errors of Parquet files as one line each, and what a file says of itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import PictuneError

WRITE_AGAIN = "remove it and run the stage that writes it again"


def read_metadata(path: Path) -> pq.FileMetaData:
    """Return a Parquet file's description of itself: rows, columns and types.

    Raises:
        PictuneError: the file is missing or is not Parquet.
    """
    with parquet_faults(path, "the table it should be", WRITE_AGAIN):
        return pq.read_metadata(path)


@contextmanager
def parquet_faults(path: Path, wanted: str, advice: str) -> Iterator[None]:
    """Turn every error of pyarrow about the file `path` into one line that names the file.

    Args:
        path: the file, which may be missing, damaged or something else than Parquet.
        wanted: names what the file should be, for the error.
        advice: ends the error.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno)
            raise PictuneError(
                f"{path}: cannot be read ({reason}); make it readable, or {advice}"
            ) from error
        reason = next(iter(str(error).strip("\"'\n ").splitlines()), type(error).__name__)
        raise PictuneError(f"{path}: not {wanted} ({reason}); {advice}") from error
