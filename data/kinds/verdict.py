"""Verdict: is one image good or bad?"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from data.comparisons import Axis
from data.ids import Remark
from data.kinds.kind import Answer, Columns, Kind, TaskFacts
from data.schema import LABELS_BINARY

if TYPE_CHECKING:
    import pandas as pd


class BinaryAnswer(Answer, frozen=True):
    """Verdict on whether one image fits its prompt (Lee et al. 2023, arXiv 2302.12192)."""

    kind: Literal["binary"] = "binary"
    verdict: Literal["good", "bad", "skip", "unsafe"]
    """`skip` is can't tell; `unsafe` is an image that nobody should be shown."""
    reason: Remark | None = None
    """Reason why it was skipped, or is bad or unsafe."""
    comment: Remark | None = None
    """Free text."""


class Verdict(Kind[BinaryAnswer]):
    """The kind `binary`."""

    name = "binary"
    plural = "verdicts"
    answer = BinaryAnswer
    table = "labels_binary"
    schema = LABELS_BINARY
    answer_column = "label"
    is_new = False
    names_unsafe_images = False

    def number_of_images(self, axis: Axis | None) -> tuple[int, int]:
        """One."""
        del axis
        return 1, 1

    def is_skip(self, answer: BinaryAnswer) -> bool:
        """Whether it is skip or unsafe."""
        return answer.verdict in ("skip", "unsafe")

    def outcome(self, answer: BinaryAnswer) -> str:
        """Return the verdict."""
        return answer.verdict

    def reported(self, answer: BinaryAnswer, image_ids: Sequence[str]) -> set[str]:
        """Return the image where it is unsafe."""
        return set(image_ids) if answer.verdict == "unsafe" else set()

    def agrees(self, answer: BinaryAnswer, gold: BinaryAnswer) -> bool | None:
        """Return whether it is the gold verdict; None for a skip, unless that is right itself."""
        if self.is_skip(answer) and not self.is_skip(gold):
            return None
        return answer.verdict == gold.verdict

    def in_words(self, answer: BinaryAnswer, image_ids: Sequence[str]) -> str:
        """Return the verdict."""
        del image_ids
        return answer.verdict

    def columns(self, answers: Sequence[dict[str, Any]], asked: Sequence[TaskFacts]) -> Columns:
        """Return the image and the verdict."""
        return {
            "image_id": [task.image_ids[0] for task in asked],
            "label": [answer["verdict"] for answer in answers],
        }

    def skipped(self, labels: "pd.DataFrame") -> "pd.Series[bool]":
        """Return which are skip or unsafe."""
        return labels["label"].isin(["skip", "unsafe"])

    def from_source(
        self, said: Any, image_ids: Sequence[str], rest: Mapping[str, Any]
    ) -> BinaryAnswer:
        """Return the verdict with its remarks."""
        del image_ids
        remarks = {name: rest.get(name) for name in ("reason", "comment")}
        return BinaryAnswer.model_validate({"verdict": said} | remarks)
