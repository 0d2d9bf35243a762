"""The figures of a comparison campaign, the content of `comparison/metrics.json`."""

from pydantic import BaseModel

from data.quality.habits import QUICK

AXIS_TITLES = {
    "overall": "Overall preference",
    "alignment": "Prompt-image alignment",
    "appeal": "Visual appeal",
    "detailed": "Detailed alignment",
    "count": "Numerical reasoning",
}

Interval = tuple[float, float] | None
"""Bounds of an interval; None with one rater and one prompt."""


class ShareFigures(BaseModel, frozen=True):
    """A share of votes, with intervals over raters and prompts."""

    share: float
    n: int
    interval: Interval = None
    """95 %."""
    interval_99: Interval = None


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
    interval_99: Interval = None


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
    interval_99: Interval = None
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
    pairs: list[PairFigures]


class AgreementFigures(BaseModel, frozen=True):
    """Krippendorff's alpha; None if no two raters saw the same pair, or all answers are equal."""

    alpha: float | None
    alpha_ci_low: float | None
    alpha_ci_high: float | None
    n_tasks: int
    n_labels: int


class AutomaticFigures(BaseModel, frozen=True):
    """Agreement of an automatic figure with people's decided votes."""

    name: str
    agreed: ShareFigures


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
    left: ShareFigures | None = None
    """Share of decided votes for the image at the left."""
    agreement: AgreementFigures
    automatic: list[AutomaticFigures] = []


class CountFigures(BaseModel, frozen=True):
    """Counts in one model's images, on the axis count."""

    model: str
    n: int
    mean: float
    """Mean count; 10 means 10 or more."""
    right: ShareFigures | None = None
    """Share of counts equal to the number in the prompt, over prompts with a number."""


class RaterRow(BaseModel, frozen=True):
    """Figures of one rater against the others."""

    rater_id: str
    n: int
    """Votes."""
    compared: int
    """Number of decided votes on pairs where the majority of other raters prefers an image."""
    agreed: int
    """Number of these votes for the same image."""
    interval: tuple[float, float]
    """95 % Wilson interval of the share agreed."""
    left: float | None
    """Share of decided votes for the image at the left."""
    by_chance: bool
    """Whether the agreed share is compatible with one half and below the share of all raters, or
    nearly all votes prefer the same side."""
    flags: tuple[str, ...] = ()
    """Signs that the rater does not look at the images (`data.quality.habits`)."""

    @property
    def looks(self) -> bool:
        """Whether nothing shows that the answers are independent of the images."""
        return not self.by_chance and QUICK not in self.flags


class DisputeRow(BaseModel, frozen=True):
    """A pair of images on which raters disagree."""

    axis: str
    prompt: str
    images: tuple[str, str]
    """Ids."""
    models: tuple[str, str]
    first: int
    ties: int
    second: int
    comments: list[str]


class Comparison(BaseModel, frozen=True):
    """Content of `comparison/metrics.json`."""

    run: str
    source: str
    """Source of the labels: human, imported or simulated."""
    others: dict[str, int] = {}
    """Number of labels of other sources, which are not used."""
    models: dict[str, list[str | None]]
    """Hashes of the adapters that drew each model's images; null stands for the base."""
    raters: list[RaterRow]
    omitted: list[str] = []
    """Raters who do not look at the images and are omitted by `arena.omit_raters`."""
    axes: list[AxisFigures]
    unanswered: list[str] = []
    """Planned axes without answers."""
    verdicts: list[tuple[str, str]] = []
    """(title of the axis, sentence on the preferred model and its certainty), for the pages."""
    counts: list[CountFigures] = []
    disputes: list[DisputeRow] = []
