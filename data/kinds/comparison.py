"""Comparison: which of two images of one prompt is better?"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from data.ids import Identifier, Remark
from data.kinds.kind import Answer, Columns, InvalidAnswer, Kind, TaskFacts
from data.schema import LABELS_COMPARISONS


class ComparisonAnswer(Answer, frozen=True):
    """Answer to a comparison."""

    kind: Literal["comparison"] = "comparison"
    outcome: Literal["preferred", "tie", "both_bad", "skip", "unsafe"]
    """`preferred` names an image; `both_bad` is a tie of two bad images."""
    preferred: Identifier | None = None
    """The better image; None for other outcomes."""
    reason: Remark | None = None
    """Reason for a skip or a report."""
    comment: Remark | None = None
    """Free text."""
    unsafe: Annotated[
        tuple[Identifier, ...], Field(max_length=2, exclude_if=lambda image_ids: not image_ids)
    ] = ()
    """Images that nobody should be shown."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        parts = (
            ("preferred", self.preferred is not None),
            ("unsafe", bool(self.unsafe)),
        )
        for outcome, given in parts:
            if given != (self.outcome == outcome):
                raise ValueError(f"the outcome {outcome} and only it comes with `{outcome}`")
        return self


class Comparison(Kind[ComparisonAnswer]):
    """The kind `comparison`."""

    name = "comparison"
    plural = "comparisons"
    answer = ComparisonAnswer
    table = "labels_comparisons"
    schema = LABELS_COMPARISONS
    answer_column = "answer"
    images = (2, 2)
    has_axis = True
    can_be_decided = False

    def check(self, answer: ComparisonAnswer, image_ids: Sequence[str]) -> None:
        """Check that the answer names only these images.

        Raises:
            InvalidAnswer: the answer does not fit.
        """
        named = {answer.preferred, *answer.unsafe} - {None}
        if not named <= set(image_ids):
            strangers = ", ".join(sorted(str(one) for one in named - set(image_ids)))
            raise InvalidAnswer(
                f"answer: images {strangers} are not of this task; name images of it"
            )

    def outcome(self, answer: ComparisonAnswer) -> str:
        """Return the outcome without the name of the better image."""
        return answer.outcome

    def agrees(self, answer: ComparisonAnswer, gold: ComparisonAnswer) -> bool | None:
        """Return whether outcome and image equal the right answer; None for a skip."""
        if self.is_skip(answer):
            return None
        return (answer.outcome, answer.preferred) == (gold.outcome, gold.preferred)

    def in_words(self, answer: ComparisonAnswer, image_ids: Sequence[str]) -> str:
        """Return which image is better, or another outcome."""
        if answer.preferred is not None:
            return f"image {list(image_ids).index(answer.preferred) + 1}"
        return answer.outcome.replace("_", " ")

    def columns(self, answers: Sequence[dict[str, Any]], asked: Sequence[TaskFacts]) -> Columns:
        """Return the question and the answer; the answer calls the images `first` and `second`."""
        given = [ComparisonAnswer.model_validate(answer) for answer in answers]
        return {
            "axis": [task.axis for task in asked],
            "image_ids": [task.image_ids for task in asked],
            "models": [task.models for task in asked],
            "answer": [
                _answer_in_order(answer, task.image_ids)
                for answer, task in zip(given, asked, strict=True)
            ],
            "unsafe_image_ids": [list(answer.unsafe) for answer in given],
        }

    def from_source(
        self, value: Any, image_ids: Sequence[str], rest: Mapping[str, Any]
    ) -> ComparisonAnswer:
        """Return the answer, with image ids in place of `first` and `second`."""
        side = {"first": 0, "second": 1}.get(str(value))
        facts: dict[str, Any] = {"outcome": str(value)}
        if side is not None and side < len(image_ids):
            facts = {"outcome": "preferred", "preferred": image_ids[side]}
        return ComparisonAnswer.model_validate(facts | dict(rest))


def _answer_in_order(answer: ComparisonAnswer, image_ids: Sequence[str]) -> str:
    if answer.preferred is None:
        return answer.outcome
    return ("first", "second")[list(image_ids).index(answer.preferred)]
