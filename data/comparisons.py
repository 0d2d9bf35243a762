"""Comparisons of models by people: the axes that are asked about, and the answers.

Each axis is a question of its own (Imagen 3, arXiv 2408.07009): four about two images of one prompt
by two models, one about the number of things in a single image.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from data.ids import Identifier, Remark

Axis = Literal["overall", "alignment", "appeal", "detailed", "count"]
AXES: tuple[Axis, ...] = ("overall", "alignment", "appeal", "detailed", "count")

SHOWN_WITHOUT_PROMPT = frozenset({"appeal", "count"})
"""The axes whose raters are not told the prompt."""

MOST_COUNTED = 10
"""Highest count that is told apart; it stands for more as well."""


Strength = Literal["slightly", "much"]
"""Degree of a preference, in a comparison with five steps."""


def _is_none(value: object) -> bool:
    return value is None


class ComparisonAnswer(BaseModel, frozen=True, extra="forbid"):
    """Answer to a comparison; on the axis count, the number of things in the image."""

    kind: Literal["comparison"] = "comparison"
    outcome: Literal["preferred", "tie", "both_bad", "count", "skip", "unsafe"]
    """`preferred` names an image; `both_bad` is a tie of images that are of no use."""
    preferred: Identifier | None = None
    """The better image, where there is one."""
    strength: Annotated[Strength | None, Field(exclude_if=_is_none)] = None
    """Degree of the preference, where that was asked."""
    count: Annotated[int, Field(ge=0, le=MOST_COUNTED)] | None = None
    """Number of things; the highest stands for more as well."""
    reason: Remark | None = None
    """Reason why it was skipped or an image is unsafe."""
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


def answers_axis(answer: ComparisonAnswer, axis: Axis | None) -> bool:
    """Whether the outcome is one that this axis asks for."""
    if answer.outcome in ("skip", "unsafe"):
        return True
    return (answer.outcome == "count") == (axis == "count")


def outcome_of(answer: str, image_ids: Sequence[str]) -> dict[str, object]:
    """Return `outcome` and `preferred` of an answer that the exported tables have."""
    side = {"first": 0, "second": 1}.get(answer)
    if side is None or side >= len(image_ids):
        return {"outcome": answer}
    return {"outcome": "preferred", "preferred": image_ids[side]}


def answer_in_order(answer: ComparisonAnswer, image_ids: Sequence[str]) -> str:
    """Return the answer as the exported tables have it: `first` or `second` of the images."""
    if answer.preferred is None:
        return answer.outcome
    return ("first", "second")[list(image_ids).index(answer.preferred)]
