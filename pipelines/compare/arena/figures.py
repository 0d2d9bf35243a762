"""The figures of a comparison campaign, the content of `comparison/metrics.json`."""

from pydantic import BaseModel

AXIS_TITLES = {
    "overall": "Overall preference",
    "alignment": "Prompt-image alignment",
    "appeal": "Visual appeal",
}

Interval = tuple[float, float] | None
"""Bounds of an interval; None with one rater and one prompt."""


class ShareFigures(BaseModel, frozen=True):
    """A share of votes, with its interval over raters and prompts."""

    share: float
    n: int
    interval: Interval = None
    """95 %."""


class StrengthFigures(BaseModel, frozen=True):
    """Strength of one model on the Elo scale; the mean over the models is 1000."""

    model: str
    n: int
    """Number of votes on pairs with an image of the model."""
    share: float
    """Share of these votes that the model won; a tie counts half."""
    elo: float
    interval: Interval = None
    """95 %."""


class PairFigures(BaseModel, frozen=True):
    """One model against another, from the perspective of the first model."""

    first: str
    second: str
    n: int
    wins: int
    ties: int
    losses: int
    won: ShareFigures
    """Share of votes that the first model won; a tie counts half."""
    difference: float | None = None
    """Difference of the strengths in Elo points; None if the models are not connected."""
    interval: Interval = None
    at_any_look: Interval = None
    """95 % interval of the difference that stays valid for any number of looks."""
    needed: int | None = None
    """Total number of votes that would decide the pair if the current difference is true; None if
    far away."""
    prompts: int
    """Number of prompts with votes."""

    @property
    def standing(self) -> str:
        """Phrase that says whether labeling of the pair can stop."""
        if self.at_any_look is None:
            return "too early"
        if not self.at_any_look[0] <= 0 <= self.at_any_look[1]:
            return "enough"
        return "no end in sight" if self.needed is None else f"not yet: about {self.needed} votes"


class CategoryFigures(BaseModel, frozen=True):
    """The votes on the prompts of one category."""

    category: str
    n: int
    strengths: list[StrengthFigures]
    """Strengths, strongest first; empty if the models are not connected."""


class AxisFigures(BaseModel, frozen=True):
    """Figures of the votes on one question."""

    axis: str
    n: int
    """Votes."""
    ties: int
    """Number of ties, including `both_bad`."""
    both_bad: int
    skipped: int
    """Number of labels without a vote: skipped tasks and reported images."""
    raters: int
    prompts: int
    strengths: list[StrengthFigures]
    pairs: list[PairFigures]
    categories: list[CategoryFigures]


class Comparison(BaseModel, frozen=True):
    """Content of `comparison/metrics.json`."""

    run: str
    source: str
    """Source of the labels: human, imported or simulated."""
    others: dict[str, int] = {}
    """Number of labels of other sources, which are not used."""
    models: dict[str, list[str | None]]
    """Hashes of the adapters that drew each model's images; null stands for the base."""
    raters: int
    """Number of raters with votes on any axis."""
    axes: list[AxisFigures]
    unanswered: list[str] = []
    """Planned axes without answers."""
    verdicts: list[tuple[str, str]] = []
    """(title of the axis, sentence on the preferred model and its certainty), for the pages."""
