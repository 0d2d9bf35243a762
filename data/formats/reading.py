"""Rows of Parquet, JSON and CSV files, and the image files that they name."""

import base64
import binascii
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq

from data.errors import PictuneError
from data.files import read_json
from data.formats.records import BadRow, Row, SourceImage
from data.schema import parquet_faults

BATCH_ROWS = 128
"""Number of rows that are in memory at once; they may contain images."""

MOST_COLUMNS = 30
"""Number of columns that an error names."""

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def split_of(path: Path) -> str | None:
    """Return the split in a file's name, as in `train-00000-of-00645.parquet`, or None."""
    return SPLITS.get(re.split(r"[-_.]", path.stem)[0])


def source_files(source: Path, suffix: str) -> list[Path]:
    """Return the file `source`, or all files of this suffix in the folder `source`, by name.

    Raises:
        PictuneError: there are none, or one is a link out of the folder.
    """
    if source.is_dir():
        files = sorted(source.rglob(f"*{suffix}"))
        for file in files:
            check_link(file, source)
        if files:
            return files
        raise PictuneError(
            f"{source}: holds no {suffix} file; give the folder or file to import as FROM="
        )
    if not source.is_file():
        raise PictuneError(f"{source}: no such file; give the folder or file to import as FROM=")
    return [source]


def check_link(file: Path, folder: Path) -> None:
    """Refuse a link out of the folder.

    Whoever made the folder chose what the link leads to, and could choose any file that you may
    read.

    Raises:
        PictuneError: it is such a link.
    """
    if not _is_within(file, folder):
        raise PictuneError(
            f"{file}: is a link out of {folder}, to {file.resolve()}; put the file itself there"
        )


def _is_within(file: Path, folder: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())


def parquet_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield the rows of a Parquet file with these columns; `optional` ones may be missing.

    Raises:
        PictuneError: it is missing, is not Parquet or damaged, or lacks a required column.
    """
    with (
        parquet_faults(path, "a Parquet file that can be read", "give another file as FROM="),
        pq.ParquetFile(path) as file,
    ):
        names = file.schema_arrow.names
        _check_columns(path, names, required)
        columns = [name for name in (*required, *optional) if name in names]
        number = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            for values in batch.to_pylist():
                number += 1
                yield Row(path, number, values)


def rows_of(source: Path, required: Sequence[str], known: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a Parquet file, or of all in a folder, with the `known` columns alone."""
    for path in source_files(source, ".parquet"):
        yield from parquet_rows(path, required, [one for one in known if one not in required])


def json_rows(path: Path, required: Sequence[str]) -> Iterator[Row | BadRow]:
    """Yield the objects of a JSON file that contains a list of them; bad ones lack a required name.

    Raises:
        PictuneError: it is not JSON or not a list.
    """
    rows = read_json(path, "fix it, or give another file as FROM=")
    if not isinstance(rows, list):
        raise PictuneError(f"{path}: holds no list of rows; give a file in this format as FROM=")
    for number, values in enumerate(rows, start=1):
        row = Row(path, number, values if isinstance(values, dict) else {})
        missing = [name for name in required if name not in row.values]
        yield row.bad(missing[0], "is missing") if missing else row


def csv_rows(path: Path, required: Sequence[str]) -> Iterator[Row | BadRow]:
    """Yield the rows of a CSV file whose first line names its columns; bad ones are too long.

    Raises:
        PictuneError: it is not a CSV file, or lacks a required column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or (), required)
            for number, values in enumerate(reader, start=1):
                row = Row(path, number, values)
                too_long = row.bad("(none)", "has more values than there are columns")
                yield too_long if None in values else row
    except UnicodeDecodeError as error:
        raise PictuneError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    except csv.Error as error:
        raise PictuneError(f"{path}: not a CSV file ({error}); fix it") from error


def find_image(row: Row, column: str, reference: str) -> Path | bytes:
    """Return the image that a row names: a `data:` address, or a file beside the row's own.

    For rows of `test.json` it is searched in its folder, and there in `test/`, `test_images/` and
    `images/`. A link out of that folder is refused. If the row names the address of a file on a hub
    or a server, the path within it is used. Nothing is downloaded.
    """
    if reference.startswith("data:"):
        return _decode_data_address(row, column, reference)
    try:
        path = PurePosixPath(_local_part(reference))
    except ValueError as error:
        raise row.bad(column, f"{reference!r} is not an address ({error})") from error
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise row.bad(column, f"{reference!r} is not a path within the source's folder")
    folder = row.path.parent
    subfolders = (row.path.stem, f"{row.path.stem}_images", "images")
    for place in (folder / path, *(folder / name / path for name in subfolders)):
        if place.is_file():
            if not _is_within(place, folder):
                raise row.bad(
                    column,
                    f"{reference!r} is a link out of {folder}, to {place.resolve()}; "
                    "put the file itself there",
                )
            return place
    searched = ", ".join(subfolders)
    raise row.bad(column, f"no image {path} in {folder}, nor in its folders {searched}")


def listed_images(row: Row, column: str, paths: Sequence[str]) -> tuple[SourceImage, ...]:
    """Return the images that a row lists in one column, each found by `find_image`."""
    named = {f"{column}[{number}]": path for number, path in enumerate(paths)}
    return tuple(
        SourceImage(column=name, content=find_image(row, name, path))
        for name, path in named.items()
    )


def _local_part(reference: str) -> str:
    if "://" not in reference:
        return reference
    path = unquote(urlsplit(reference).path)
    _, resolve, within = path.partition("/resolve/")
    return within.partition("/")[2] if resolve else path.lstrip("/")


def _decode_data_address(row: Row, column: str, reference: str) -> bytes:
    head, _, content = reference.partition(",")
    try:
        if head.endswith(";base64"):
            return base64.b64decode(content, validate=True)
        return content.encode("latin-1")
    except (binascii.Error, UnicodeEncodeError) as error:
        raise row.bad(column, f"is a data: address that cannot be read ({error})") from error


def _check_columns(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        found = ", ".join(map(repr, names[:MOST_COLUMNS])) or "none"
        raise PictuneError(
            f"{path}: row 1, column {missing[0]}: is missing, the columns are {found}; "
            "give a file in this format as FROM="
        )
