"""Comparison: which of two images of one prompt is better, or how many things are in one?"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from data.comparisons import MOST_COUNTED, Axis, Strength
from data.ids import Identifier, Remark
from data.kinds.kind import Answer, Columns, InvalidAnswer, Kind, TaskFacts
from data.schema import LABELS_COMPARISONS


def _is_none(value: object) -> bool:
    return value is None


class ComparisonAnswer(Answer, frozen=True):
    """Answer to a comparison; on the axis count, the number of things in the image."""

    kind: Literal["comparison"] = "comparison"
    outcome: Literal["preferred", "tie", "both_bad", "count", "skip", "unsafe"]
    """`preferred` names an image; `both_bad` is a tie of two bad images."""
    preferred: Identifier | None = None
    """The better image; None for other outcomes."""
    strength: Annotated[Strength | None, Field(exclude_if=_is_none)] = None
    """Strength of the preference; None if the rater was not asked for it."""
    count: Annotated[int, Field(ge=0, le=MOST_COUNTED)] | None = None
    """Number of things; the highest number means this number or more."""
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
            ("preferred", "preferred", self.preferred is not None),
            ("count", "count", self.count is not None),
            ("unsafe", "unsafe", bool(self.unsafe)),
        )
        for outcome, name, given in parts:
            if given != (self.outcome == outcome):
                raise ValueError(f"the outcome {outcome} and only it comes with `{name}`")
        if self.strength is not None and self.outcome != "preferred":
            raise ValueError("only the outcome preferred comes with `strength`")
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

    def number_of_images(self, axis: Axis | None) -> tuple[int, int]:
        """Two; one on the axis count."""
        return (1, 1) if axis == "count" else self.images

    def check(
        self,
        answer: ComparisonAnswer,
        image_ids: Sequence[str],
        axis: Axis | None,
        steps: int | None,
    ) -> None:
        """Check that the answer names only these images and fits the axis.

        Raises:
            InvalidAnswer: the answer does not fit.
        """
        named = {answer.preferred, *answer.unsafe} - {None}
        if not named <= set(image_ids):
            strangers = ", ".join(sorted(str(one) for one in named - set(image_ids)))
            raise InvalidAnswer(
                f"answer: images {strangers} are not of this task; name images of it"
            )
        if not self.is_skip(answer) and (answer.outcome == "count") != (axis == "count"):
            raise InvalidAnswer(
                f"answer: {answer.outcome} to a question of the axis {axis}; "
                "give a count there and nowhere else"
            )
        if answer.strength is not None and steps != 5:
            raise InvalidAnswer(
                "answer: `strength` to a question of three steps; leave it out there"
            )

    def outcome(self, answer: ComparisonAnswer) -> str:
        """Return the outcome without the name of the better image."""
        return answer.outcome

    def agrees(self, answer: ComparisonAnswer, gold: ComparisonAnswer) -> bool | None:
        """Return whether outcome, image and count equal the right answer; None for a skip."""
        if self.is_skip(answer):
            return None
        facts = {"outcome", "preferred", "count"}
        return answer.model_dump(include=facts) == gold.model_dump(include=facts)

    def in_words(self, answer: ComparisonAnswer, image_ids: Sequence[str]) -> str:
        """Return which image is better, the count, or another outcome."""
        if answer.preferred is not None:
            return f"image {list(image_ids).index(answer.preferred) + 1}"
        return answer.outcome.replace("_", " ") if answer.count is None else str(answer.count)

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
            "strength": [answer.strength for answer in given],
            "count": [answer.count for answer in given],
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
