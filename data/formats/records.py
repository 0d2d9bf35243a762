"""Records, which every importer yields: a row of the source with its images and answers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from data.errors import PictuneError
from data.feedback import Source
from data.ids import control_character
from data.kinds.registry import TaskKind

Ranks = tuple[int | None, ...]
LONGEST_VALUE = 60
"""Number of characters of a wrong value that an error shows."""


Given = TypeVar("Given")
Made = TypeVar("Made")


class BadRow(PictuneError):
    """Error that says what is wrong with one row of a source."""

    def __init__(self, fault: str) -> None:
        super().__init__(
            f"{fault}; fix or remove the row, or leave it out by SKIP_BAD=1 (--skip-bad); nothing "
            "was imported"
        )
        self.fault = fault


def made(rows: Iterable[Given | BadRow], make: Callable[[Given], Made]) -> Iterator[Made | BadRow]:
    """Yield what `make` makes of each row, or what is wrong with it, so that all can be told."""
    for row in rows:
        try:
            yield row if isinstance(row, BadRow) else make(row)
        except BadRow as error:
            yield error


@dataclass(frozen=True)
class Row:
    """One row of a source file, with methods that return its values by type.

    Each of them raises PictuneError with file, row and column.
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
        """Return a text, or None where there is none or an empty one."""
        value = self.values.get(column)
        return self.text(column) if value is not None and value != "" else None

    def integer(self, column: str) -> int:
        """Return a whole number."""
        value = self.values.get(column)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(column, f"is {_shown(value)}, not a whole number")
        return value

    def choice(self, column: str, known: Mapping[Any, Any]) -> Any:
        """Return the entry of `known` for the value."""
        value = self.values.get(column)
        if isinstance(value, (list, dict)) or value not in known:
            raise self.bad(column, f"is {_shown(value)}, not one of {', '.join(map(str, known))}")
        return known[value]

    def listed(self, column: str, kind: type, *, length: int | None = None) -> list[Any]:
        """Return a list of values of the type `kind`, of this length where one is given."""
        value = self.values.get(column)
        if not isinstance(value, list) or any(
            isinstance(one, bool) or not isinstance(one, kind) for one in value
        ):
            wanted = "texts" if kind is str else "whole numbers"
            raise self.bad(column, f"is {_shown(value)}, not a list of {wanted}")
        if length is not None and len(value) != length:
            raise self.bad(column, f"has {len(value)} entries where {length} are wanted")
        return value


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image of a row."""

    column: str
    """Column that names it, for errors."""
    content: bytes | Path | None
    """Bytes or file; None when an earlier row brought the image of this `image_id`."""
    image_id: str | None = None
    """SHA-256 of the bytes, where the source knows it."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Known facts about how it was made, by column of `data.schema.IMAGES`."""


@dataclass(frozen=True, kw_only=True)
class SourceLabel:
    """One rater's answer to the task that a row makes."""

    answer: str | Ranks
    """The verdict on one image, the ranks of the row's images, or the answer to a comparison.

    Of the ranks the smallest is best, equal is a tie, None is can't judge. A comparison has
    `first` or `second` of the row's images, or another outcome."""
    remarks: Mapping[str, Any] = field(default_factory=dict)
    """Further parts of the answer, as `Kind.from_source` takes them."""
    rater: str | None
    """The source's name of the rater; None where it does not tell raters apart."""
    submitted_at: datetime | None = None
    """The time of the answer; None where that is not known."""
    shown_order: tuple[int, ...] | None = None
    """The place on the screen of each image; None where it is not known.

    The order of the row then stands for it."""
    source: Source = "imported"
    submission_id: str | None = None
    """The identity of the answer, where the source knows one."""
    number: str = ""
    """The source's number of the answer: equal answers of a rater under two numbers are two."""
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of `data.store.imported.ImportedLabel`."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a source: images of one prompt, a task about them, and its answers."""

    row: Row
    prompt: str
    images: tuple[SourceImage, ...]
    kind: TaskKind | None = None
    """Kind of the task; None for images that nothing is asked about."""
    labels: tuple[SourceLabel, ...] = ()
    category: str | None = None
    split: str | None = None
    task: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `data.feedback.NewTask`."""


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
    """Refuse control characters, which a store in PostgreSQL could never keep."""
    raters = [label.rater for label in record.labels]
    for column, text in (("prompt", record.prompt), *(("rater", name) for name in raters)):
        found = control_character(text or "")
        if found is not None:
            named = [name for name, value in record.row.values.items() if value == text]
            raise record.row.bad((named or [column])[0], f"has the control character {found}")
