"""The figures of a comparison campaign, as `comparison/metrics.json` holds them."""

from pydantic import BaseModel

from data.quality.habits import QUICK

Interval = tuple[float, float] | None
"""Bounds; None where one rater answered to one prompt."""


class ShareFigures(BaseModel, frozen=True):
    """A share of votes, with intervals over raters and prompts."""

    share: float
    n: int
    interval: Interval = None
    """95 %."""
    interval_99: Interval = None


class StrengthFigures(BaseModel, frozen=True):
    """One model's strength on the Elo scale; the mean of all models is 1000."""

    model: str
    n: int
    """Votes on an image by the model."""
    share: float
    """Share of these votes that it won, ties counting half."""
    elo: float
    interval: Interval = None
    """95 %."""
    interval_99: Interval = None


class PairFigures(BaseModel, frozen=True):
    """One model against another; everything is from the first one's side."""

    first: str
    second: str
    n: int
    wins: int
    ties: int
    losses: int
    won: ShareFigures
    """Share won, ties counting half."""
    probability: float | None = None
    """Probability of winning by the strengths of all models; None where they are not connected."""
    difference: float | None = None
    """Difference of the strengths in Elo points."""
    interval: Interval = None
    interval_99: Interval = None
    at_any_look: Interval = None
    """95 % interval of the difference that holds however often one looks."""
    needed: int | None = None
    """Votes in all that decide it, if the present difference is the true one; None if that is far
    off."""
    p_value: float | None = None
    """Wilcoxon signed rank over prompts, two-sided; None where no prompt prefers a model."""
    prompts: int
    """Prompts with votes."""


class CategoryFigures(BaseModel, frozen=True):
    """The votes on the prompts of one category."""

    category: str
    n: int
    strengths: list[StrengthFigures]
    """Strongest first; empty where the models are not connected."""
    pairs: list[PairFigures]


class AgreementFigures(BaseModel, frozen=True):
    """Krippendorff's alpha; None where no two raters saw the same pair, or all answers are one."""

    alpha: float | None
    alpha_ci_low: float | None
    alpha_ci_high: float | None
    n_tasks: int
    n_labels: int


class AutomaticFigures(BaseModel, frozen=True):
    """Agreement of an automatic figure with people on the pairs that they decide."""

    name: str
    agreed: ShareFigures


class AxisFigures(BaseModel, frozen=True):
    """One question's votes."""

    axis: str
    n: int
    """Votes."""
    ties: int
    """Votes that are ties, with `both_bad`."""
    both_bad: int
    skipped: int
    """Labels that are no vote: skipped, or an image was reported."""
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
    """Mean count; 10 stands for more as well."""
    right: ShareFigures | None = None
    """Share of counts that are the number in the prompt, where it names one."""


class RaterRow(BaseModel, frozen=True):
    """One rater beside the others."""

    rater_id: str
    n: int
    """Votes."""
    compared: int
    """Decided votes on pairs of images where the other raters together prefer one image."""
    agreed: int
    """Votes among these that prefer the same image."""
    interval: tuple[float, float]
    """95 % Wilson interval of the share agreed."""
    left: float | None
    """Share of decided votes for the image at the left."""
    by_chance: bool
    """Whether the share agreed may be one half and is less than the share of all raters, or
    the image preferred is at the same side in nearly all votes."""
    flags: tuple[str, ...] = ()
    """Habits that give away a rater who does not look (`data.quality.habits`)."""

    @property
    def looks(self) -> bool:
        """Whether the answers depend on the images, as far as can be told."""
        return not self.by_chance and QUICK not in self.flags


class DisputeRow(BaseModel, frozen=True):
    """A pair of images that raters disagree on."""

    axis: str
    prompt: str
    images: tuple[str, str]
    """Ids."""
    models: tuple[str, str]
    first: int
    ties: int
    second: int
    comments: list[str]


class RankingFigures(BaseModel, frozen=True):
    """Strengths from rankings of one image of each model (Plackett-Luce)."""

    n: int
    raters: int
    prompts: int
    strengths: list[StrengthFigures]


class Comparison(BaseModel, frozen=True):
    """Content of `comparison/metrics.json`."""

    run: str
    source: str
    """Whose labels: human, imported or simulated."""
    others: dict[str, int] = {}
    """Labels of other sources, which do not count."""
    models: dict[str, list[str | None]]
    """Hashes of the adapters that drew each model's images; null is the base."""
    level_difference: float
    """Difference in Elo points for which the interval at any look is shortest."""
    raters: list[RaterRow]
    omitted: list[str] = []
    """Raters who do not look and are left out, as `arena.omit_raters` says."""
    axes: list[AxisFigures]
    unanswered: list[str] = []
    """Axes that were planned and that nobody has answered."""
    verdicts: list[tuple[str, str]] = []
    """For each axis, by title, who is preferred and how surely, as pages say it."""
    counts: list[CountFigures] = []
    rankings: RankingFigures | None = None
    disputes: list[DisputeRow] = []
