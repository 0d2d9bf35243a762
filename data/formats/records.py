"""Records that every importer yields, and the rows and images of source files."""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import PictuneError
from data.files import read_json
from data.ids import control_character
from data.kinds.registry import TaskKind
from data.schema import parquet_faults

Ranks = tuple[int | None, ...]
LONGEST_VALUE = 60
"""Number of characters of a wrong value that an error shows."""
BATCH_ROWS = 128
"""Number of rows in memory at the same time; a row may contain images."""

MOST_COLUMNS = 30
"""Number of columns that an error names."""

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}

Given = TypeVar("Given")
Converted = TypeVar("Converted")


class BadRow(PictuneError):
    """Error that says what is wrong with one row of a source."""

    def __init__(self, fault: str) -> None:
        super().__init__(
            f"{fault}; fix or remove the row, or leave it out by SKIP_BAD=1 (--skip-bad); nothing "
            "was imported"
        )
        self.fault = fault


def converted(
    rows: Iterable[Given | BadRow], make: Callable[[Given], Converted]
) -> Iterator[Converted | BadRow]:
    """Yield for each row the result of `make`, or its error, so that all errors can be listed."""
    for row in rows:
        try:
            yield row if isinstance(row, BadRow) else make(row)
        except BadRow as error:
            yield error


@dataclass(frozen=True)
class Row:
    """One row of a source file, with methods that return its values by type.

    Each method raises PictuneError with file, row and column.
    """

    path: Path
    number: int
    """Number of the row in the file, from 1."""
    values: Mapping[str, Any]

    def bad(self, column: str, reason: str) -> BadRow:
        """Return the error that names this row and column."""
        return BadRow(f"{self.path}: row {self.number}, column {column}: {reason}")

    def has(self, column: str) -> bool:
        """Whether the column is there and filled."""
        return self.values.get(column) is not None

    def text(self, column: str) -> str:
        """Return a text that is not empty."""
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(column, f"is {_shown(value)}, not a text")
        return value

    def optional_text(self, column: str) -> str | None:
        """Return a text, or None where it is missing or empty."""
        value = self.values.get(column)
        return self.text(column) if value is not None and value != "" else None

    def integer(self, column: str) -> int:
        """Return a whole number."""
        value = self.values.get(column)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(column, f"is {_shown(value)}, not a whole number")
        return value

    def choice(self, column: str, known: Collection[Any]) -> Any:
        """Return the value, which must be among the `known` ones."""
        value = self.values.get(column)
        if isinstance(value, (list, dict)) or value not in known:
            raise self.bad(column, f"is {_shown(value)}, not one of {', '.join(map(str, known))}")
        return value

    def listed(self, column: str, kind: type, *, length: int | None = None) -> list[Any]:
        """Return a list of values of the type `kind`, with `length` entries if that is given."""
        value = self.values.get(column)
        if not isinstance(value, list) or any(
            isinstance(one, bool) or not isinstance(one, kind) for one in value
        ):
            wanted = "texts" if kind is str else "whole numbers"
            raise self.bad(column, f"is {_shown(value)}, not a list of {wanted}")
        if length is not None and len(value) != length:
            raise self.bad(column, f"has {len(value)} entries where {length} are wanted")
        return value

    @property
    def split_of_file(self) -> str | None:
        """The split in the name of the row's file, as in `train-00000-of-00645.parquet`."""
        return SPLITS.get(re.split(r"[-_.]", self.path.stem)[0])

    @property
    def own_split(self) -> str | None:
        """The split in the row's column `split`, if it has a value."""
        return None if self.optional_text("split") is None else SPLITS[self.choice("split", SPLITS)]

    def images(self, column: str, paths: Sequence[str]) -> tuple["SourceImage", ...]:
        """Return the images that a column lists."""
        named = {f"{column}[{number}]": path for number, path in enumerate(paths)}
        return tuple(self.image(name, path) for name, path in named.items())

    def image(
        self, column: str, reference: str, facts: Mapping[str, object] | None = None
    ) -> "SourceImage":
        """Return the image that the row names, a file beside the row's file.

        For rows of `ranks.json` the search covers its folder and the subfolders `ranks/`,
        `ranks_images/` and `images/`. A link out of that folder is refused. If the row has the
        address of a file on a hub or a server, the path in the address is used. Nothing is
        downloaded.
        """
        try:
            path = PurePosixPath(_local_part(reference))
        except ValueError as error:
            raise self.bad(column, f"{reference!r} is not an address ({error})") from error
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise self.bad(column, f"{reference!r} is not a path within the source's folder")
        folder = self.path.parent
        subfolders = (self.path.stem, f"{self.path.stem}_images", "images")
        for place in (folder / path, *(folder / name / path for name in subfolders)):
            try:
                is_there = place.is_file()
            except OSError as error:  # its name is too long
                reason = f"{_shown(reference)} cannot be a file ({error.strerror})"
                raise self.bad(column, reason) from error
            if is_there:
                if not _is_within(place, folder):
                    raise self.bad(
                        column,
                        f"{reference!r} is a link out of {folder}, to {place.resolve()}; "
                        "put the file itself there",
                    )
                return SourceImage(column=column, content=place, facts=facts or {})
        searched = ", ".join(subfolders)
        raise self.bad(
            column, f"no image {str(path)[:200]} in {folder}, nor in its folders {searched}"
        )


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image of a row."""

    column: str
    """Column of the image, for errors."""
    content: bytes | Path
    facts: Mapping[str, object] = field(default_factory=dict)
    """Known facts about the image, by column of `data.schema.IMAGES`."""


@dataclass(frozen=True, kw_only=True)
class SourceLabel:
    """One rater's answer to the task of a row."""

    answer: str | Ranks
    """The verdict on one image, the ranks of the row's images, or the answer to a comparison.

    The smallest rank is best, equal ranks are a tie, and None is "can't judge". A comparison's
    answer is `first` or `second` (of the row's images) or another outcome."""
    remarks: Mapping[str, Any] = field(default_factory=dict)
    """Further parts of the answer, as `Kind.from_source` takes them."""
    rater: str | None
    """The rater's name in the source; None if the source does not distinguish raters."""
    submitted_at: datetime | None = None
    """Time of the answer; None if unknown."""
    shown_order: tuple[int, ...] | None = None
    """Position on the screen of each image; None if unknown, which stands for the order of the
    row."""
    submission_id: str | None = None
    """Identity of the answer, if the source has one."""
    number: str = ""
    """Number of the answer in the source; equal answers of a rater with different numbers are
    different labels."""
    app_version: str | None = None


def marked(marks: Sequence[Mapping[str, Any]], rater: str | None = None) -> SourceLabel:
    """Return a bad verdict with these marks; without marks, a good one."""
    verdict = "bad" if marks else "good"
    return SourceLabel(answer=verdict, remarks={"marks": list(marks)}, rater=rater)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a source: images of one prompt, a task about them, and its answers."""

    row: Row
    prompt: str
    images: tuple[SourceImage, ...]
    kind: TaskKind | None = None
    """Kind of the task; None for images without a task."""
    labels: tuple[SourceLabel, ...] = ()
    category: str | None = None
    split: str | None = None
    task: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `data.feedback.NewTask`."""


Records = Iterator[Record | BadRow]
"""Records of a source, or the errors of its bad rows."""


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def fact(row: Row, value: object, field: pa.Field) -> object:
    """Return `value`, which must fit the column `field`."""
    try:
        pa.scalar(value, field.type)
    except (OverflowError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise row.bad(field.name, f"is {value!r}, which does not fit {field.type}") from error
    return value


def check_texts(record: Record) -> None:
    """Refuse control characters, which PostgreSQL cannot store."""
    raters = [label.rater for label in record.labels]
    for column, text in (("prompt", record.prompt), *(("rater", name) for name in raters)):
        found = control_character(text or "")
        if found is not None:
            named = [name for name, value in record.row.values.items() if value == text]
            raise record.row.bad((named or [column])[0], f"has the control character {found}")


def source_files(source: Path, suffix: str) -> list[Path]:
    """Return the file `source`, or all files of this suffix in the folder `source`, by name.

    Raises:
        PictuneError: the folder has no such file, or a file is a link out of the folder.
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

    The maker of the folder chose the link's target, which could be any file that the user may read.

    Raises:
        PictuneError: the link leads out of the folder.
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
        PictuneError: the file is missing, is not Parquet, is damaged, or lacks a required column.
    """
    with (
        parquet_faults(path, "a Parquet file that can be read", "give another file as FROM="),
        pq.ParquetFile(path) as file,
    ):
        names = file.schema_arrow.names
        _check_columns(path, names, required)
        columns = [name for name in dict.fromkeys((*required, *optional)) if name in names]
        batches = file.iter_batches(BATCH_ROWS, columns=columns)
        rows = (values for batch in batches for values in batch.to_pylist())
        for number, values in enumerate(rows, start=1):
            yield Row(path, number, values)


def read_parquet(
    source: Path, required: Sequence[str], known: Sequence[str], make: Callable[[Row], Record]
) -> Records:
    """Yield the records of a Parquet file, or of all Parquet files in a folder.

    The `known` columns are optional; further columns are not read.
    """
    for path in source_files(source, ".parquet"):
        yield from converted(parquet_rows(path, required, known), make)


def read_json_rows(source: Path, required: Sequence[str], make: Callable[[Row], Record]) -> Records:
    """Yield the records of a JSON file with a list of objects, or of all such files in a folder."""
    for path in source_files(source, ".json"):
        yield from converted(_json_rows(path, required), make)


def _json_rows(path: Path, required: Sequence[str]) -> Iterator[Row | BadRow]:
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
        PictuneError: the file is not CSV, or lacks a required column.
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


def _local_part(reference: str) -> str:
    if "://" not in reference:
        return reference
    path = unquote(urlsplit(reference).path)
    _, resolve, within = path.partition("/resolve/")
    return within.partition("/")[2] if resolve else path.lstrip("/")


def _check_columns(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        found = ", ".join(map(repr, names[:MOST_COLUMNS])) or "none"
        raise PictuneError(
            f"{path}: row 1, column {missing[0]}: is missing, the columns are {found}; "
            "give a file in this format as FROM="
        )
