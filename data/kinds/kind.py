"""The parts of a kind of task: what the rest of the project asks a kind for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pyarrow as pa
from pydantic import BaseModel

from data.comparisons import Axis
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
        # each kind declares them itself, at their place in the stored JSON
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
    """Its name in JSON, in the store and in the tables."""
    plural: str
    """Its labels, in words."""
    answer: type[AnswerT]
    """The model of its answers."""
    table: str
    """The file of its labels in an export, without the ending."""
    schema: pa.Schema
    """The columns of that file."""
    answer_column: str
    """The column of that file with the answer itself."""
    images: tuple[int, int]
    """The fewest and the most images of a task."""
    always_counted: bool = False
    """Whether an overview counts its labels even where there are none."""
    has_axis: bool = False
    """Whether its tasks ask about an axis of `data.comparisons`."""
    takes_models: bool = False
    """Whether its tasks may name the models that drew the images."""
    can_be_decided: bool = True
    """Whether an admin may answer in place of raters who disagree."""
    names_unsafe_images: bool = True
    """Whether an answer names the images that it reports; else it reports all of them."""
    skips_with_reason: bool = True
    """Whether raters must say why they skip one."""

    @property
    def own_columns(self) -> list[str]:
        """The columns of its table that not every kind has."""
        shared = schema_of(LABEL_IDENTITY + LABEL_CIRCUMSTANCES).names
        return [name for name in self.schema.names if name not in shared]

    def read(self, folder: Path) -> pa.Table:
        """Read its labels in the folder of an export.

        Raises:
            PictuneError: the file is missing or broken.
        """
        return read_table(folder / f"{self.table}.parquet", self.schema)

    def number_of_images(self, axis: Axis | None) -> tuple[int, int]:
        """Return the fewest and the most images of a task of this axis."""
        del axis
        return self.images

    def check(
        self,
        answer: AnswerT,
        image_ids: Sequence[str],
        axis: Axis | None = None,
        *,
        has_steps: bool = True,
    ) -> None:
        """Check that an answer is about exactly these images and to this axis.

        `has_steps` is whether much better is told from slightly better.

        Raises:
            InvalidAnswer: it is not.
        """

    @abstractmethod
    def outcome(self, answer: AnswerT) -> str:
        """Return the answer in a word of at most 20 letters, by which labels are found again.

        `skip` says nothing about quality, `unsafe` reports an image.
        """

    def is_skip(self, answer: AnswerT) -> bool:
        """Whether an answer says nothing about quality."""
        return self.outcome(answer) in SKIPS

    def reported(self, answer: AnswerT, image_ids: Sequence[str]) -> set[str]:
        """Return the images of a task that nobody should be shown, by an answer to it."""
        if self.names_unsafe_images:
            return set(getattr(answer, "unsafe", ()))
        return set(image_ids) if self.outcome(answer) == "unsafe" else set()

    @abstractmethod
    def agrees(self, answer: AnswerT, gold: AnswerT) -> bool | None:
        """Return whether an answer is right; None where it can be neither right nor wrong."""

    def in_words(self, answer: AnswerT, image_ids: Sequence[str]) -> str:
        """Return an answer as admins read it, without reason and comment."""
        del image_ids
        return self.outcome(answer)

    @abstractmethod
    def columns(self, answers: Sequence[dict[str, Any]], asked: Sequence[TaskFacts]) -> Columns:
        """Return the own columns of its table, `shown_order` excepted, from answers as JSON."""

    def skipped(self, labels: "pd.DataFrame") -> "pd.Series[bool]":
        """Return which rows of its table say nothing about quality."""
        return labels[self.answer_column].isin(SKIPS)

    @abstractmethod
    def from_source(self, said: Any, image_ids: Sequence[str], rest: Mapping[str, Any]) -> AnswerT:
        """Return the answer that an imported row gives.

        Args:
            said: the value of `answer_column`, or of what stands for it in another format.
            image_ids: the task's images.
            rest: further fields of the answer, as far as they are known.

        Raises:
            ValidationError: pydantic's; it is no such answer.
        """
