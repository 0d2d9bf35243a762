"""Verdict: is one image good or bad?"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from data.ids import Remark
from data.kinds.kind import Answer, Columns, InvalidAnswer, Kind, TaskFacts
from data.regions import Marks, words_of
from data.schema import LABELS_BINARY


class BinaryAnswer(Answer, frozen=True):
    """Verdict on whether one image fits its prompt (Lee et al. 2023, arXiv 2302.12192)."""

    kind: Literal["binary"] = "binary"
    verdict: Literal["good", "bad", "skip", "unsafe"]
    """`skip` is "can't tell"; `unsafe` reports an image that nobody should see."""
    reason: Remark | None = None
    """Reason for a skip, a bad verdict or a report."""
    comment: Remark | None = None
    """Free text."""
    marks: Marks | None = Field(default=None, exclude_if=lambda marks: marks is None)
    """Marks on what is wrong; empty if the rater looked and found nothing, None if not asked."""


class Verdict(Kind[BinaryAnswer]):
    """The kind `binary`."""

    name = "binary"
    plural = "verdicts"
    answer = BinaryAnswer
    table = "labels_binary"
    schema = LABELS_BINARY
    answer_column = "label"
    images = (1, 1)
    always_counted = True
    names_unsafe_images = False

    def check_words(self, answer: BinaryAnswer, prompt: str) -> None:
        """Check that the words of the marks are words of the prompt."""
        count = len(words_of(prompt))
        for index in (index for mark in answer.marks or () for index in mark.word_indexes):
            if index >= count:
                raise InvalidAnswer(
                    f"marks: the prompt has {count} words, none at place {index}; count from 0"
                )

    def in_words(self, answer: BinaryAnswer, image_ids: Sequence[str]) -> str:
        """Return the verdict, and the number of marks if the rater was asked for them."""
        del image_ids
        marked = "" if answer.marks is None else f" (marks: {len(answer.marks)})"
        return f"{answer.verdict}{marked}"

    def outcome(self, answer: BinaryAnswer) -> str:
        """Return the verdict."""
        return answer.verdict

    def agrees(self, answer: BinaryAnswer, gold: BinaryAnswer) -> bool | None:
        """Return whether the verdict is right; None for a skip, unless skip is right."""
        if self.is_skip(answer) and not self.is_skip(gold):
            return None
        return answer.verdict == gold.verdict

    def columns(self, answers: Sequence[dict[str, Any]], asked: Sequence[TaskFacts]) -> Columns:
        """Return the image and the verdict."""
        return {
            "image_id": [task.image_ids[0] for task in asked],
            "label": [answer["verdict"] for answer in answers],
        }

    def from_source(
        self, value: Any, image_ids: Sequence[str], rest: Mapping[str, Any]
    ) -> BinaryAnswer:
        """Return the verdict with its remarks."""
        del image_ids
        return BinaryAnswer.model_validate({"verdict": value} | dict(rest))
