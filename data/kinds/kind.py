"""The interface of a kind of task, which the rest of the project uses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pyarrow as pa
from pydantic import BaseModel

from data.errors import PictuneError
from data.ids import Remark
from data.schema import LABEL_CIRCUMSTANCES, LABEL_IDENTITY, read_table, schema_of

Columns = dict[str, Sequence[Any]]
SKIPS = ("skip", "unsafe")
"""Outcomes of answers that say nothing about quality."""

if TYPE_CHECKING:
    import pandas as pd


class InvalidAnswer(PictuneError):
    """The answer does not fit the task."""


class Answer(BaseModel, frozen=True, extra="forbid"):
    """Answer to a task; each kind has a class of its own."""

    kind: str

    if TYPE_CHECKING:
        # each kind declares these fields itself, to set their position in the stored JSON
        reason: Remark | None
        comment: Remark | None


@dataclass(frozen=True)
class TaskFacts:
    """Facts about a task that the tables of labels repeat."""

    prompt_id: str
    image_ids: Sequence[str]
    gold: Answer | None
    axis: str | None = None
    models: Sequence[str] | None = None


AnswerT = TypeVar("AnswerT", bound=Answer)


class Kind(ABC, Generic[AnswerT]):
    """A kind of task: its answers, its table, its checks."""

    name: str
    """Name of the kind in JSON, in the store and in the tables."""
    plural: str
    """Name of its labels in sentences, in the plural."""
    answer: type[AnswerT]
    """The model of its answers."""
    table: str
    """The file of its labels in an export, without the ending."""
    schema: pa.Schema
    """Columns of the table."""
    answer_column: str
    """Column of the table that holds the answer."""
    images: tuple[int, int]
    """The fewest and the most images of a task."""
    always_counted: bool = False
    """Whether an overview lists the kind even without labels."""
    has_axis: bool = False
    """Whether its tasks ask about an axis of `data.comparisons`."""
    can_be_decided: bool = True
    """Whether an admin may decide a disputed task of this kind."""
    names_unsafe_images: bool = True
    """Whether an answer names the reported images; otherwise a report is about all images of the
    task."""
    skips_with_reason: bool = True
    """Whether raters must give a reason for a skip."""

    @property
    def own_columns(self) -> list[str]:
        """Columns of the table that not every kind has."""
        shared = schema_of(LABEL_IDENTITY + LABEL_CIRCUMSTANCES).names
        return [name for name in self.schema.names if name not in shared]

    def read(self, folder: Path) -> pa.Table:
        """Read the labels of this kind from the folder of an export.

        Raises:
            PictuneError: the file is missing or broken.
        """
        return read_table(folder / f"{self.table}.parquet", self.schema)

    def check(self, answer: AnswerT, image_ids: Sequence[str]) -> None:
        """Check that an answer is about exactly these images.

        Raises:
            InvalidAnswer: the answer does not fit.
        """

    def check_words(self, answer: AnswerT, prompt: str) -> None:
        """Check that the prompt has every word that an answer names.

        Raises:
            InvalidAnswer: it does not have one.
        """

    @abstractmethod
    def outcome(self, answer: AnswerT) -> str:
        """Return a keyword for searches of labels, with at most 20 letters.

        `skip` says nothing about quality, `unsafe` reports an image.
        """

    def is_skip(self, answer: AnswerT) -> bool:
        """Whether an answer says nothing about quality."""
        return self.outcome(answer) in SKIPS

    def reported(self, answer: AnswerT, image_ids: Sequence[str]) -> set[str]:
        """Return the images that an answer reports as unsafe."""
        if self.names_unsafe_images:
            return set(getattr(answer, "unsafe", ()))
        return set(image_ids) if self.outcome(answer) == "unsafe" else set()

    @abstractmethod
    def agrees(self, answer: AnswerT, gold: AnswerT) -> bool | None:
        """Return whether an answer is right; None if it is neither right nor wrong."""

    def in_words(self, answer: AnswerT, image_ids: Sequence[str]) -> str:
        """Return an answer as text for admins, without reason and comment."""
        del image_ids
        return self.outcome(answer)

    @abstractmethod
    def columns(self, answers: Sequence[dict[str, Any]], asked: Sequence[TaskFacts]) -> Columns:
        """Return the kind's own columns, except `shown_order`, from answers in JSON."""

    def skipped(self, labels: "pd.DataFrame") -> "pd.Series[bool]":
        """Return a mask of the table's rows that say nothing about quality."""
        return labels[self.answer_column].isin(SKIPS)

    @abstractmethod
    def from_source(self, value: Any, image_ids: Sequence[str], rest: Mapping[str, Any]) -> AnswerT:
        """Return the answer of an imported row.

        Args:
            value: the value of `answer_column`, or of the corresponding column of another format.
            image_ids: the task's images.
            rest: further known fields of the answer.

        Raises:
            ValidationError (pydantic): the row is not an answer of this kind.
        """
