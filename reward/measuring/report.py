"""The figures of a trained reward, the content of `metrics.json` in its folder."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from reward.maps.metrics import MapFigures

Interval = tuple[float, float]
"""Lower and upper end of a 95 % bootstrap interval."""

Counts = dict[str, int]
"""Numbers of labels by kind, and of images and prompts: `FeedbackDataset.counts`."""

PARTS = ("val", "test_seen", "test_unseen")
MODEL, UNCALIBRATED, CLIP_SCORE = "model", "uncalibrated", "clip_score"
"""Names of the reward model, of the model without calibration, and of the main baseline."""

ABSENT: Any = Field(default=None, exclude_if=lambda value: value is None)
"""Default of a value that the file omits if it is None."""


class Figures(BaseModel, frozen=True):
    """Figures of one scorer; undefined figures are None, such as the ROC-AUC of one class."""

    n: int = 0
    """Number of single labels."""
    share_good: float | None = None
    """Share of "good" among the single labels."""
    roc_auc: float | None = None
    accuracy: float | None = None
    """Accuracy at a threshold of 0.5."""
    brier: float | None = None
    ece: float | None = None
    """Calibration error, 15 bins."""
    n_pairs: int = 0
    """Number of ranked pairs without ties."""
    pairwise_accuracy: float | None = None
    """Share of the pairs in the right order; equal scores count as half right."""
    roc_auc_macro: float | None = None
    """Mean over prompts, as are all figures below."""
    good_at_1: float | None = None
    """Share of good labels on each prompt's image with the highest score."""
    pairwise_accuracy_macro: float | None = None


class FiguresWithIntervals(Figures, frozen=True):
    """Figures, with intervals if the bootstrap gives them."""

    intervals: dict[str, Interval | None]


class Gain(BaseModel, frozen=True):
    """A difference of two figures on the same labels."""

    value: float
    interval: Interval | None


class HumanFigures(BaseModel, frozen=True):
    """Figures of the other raters of each label, and of the model on the same labels."""

    model: FiguresWithIntervals
    others: FiguresWithIntervals


class PartReport(BaseModel, frozen=True, extra="allow"):
    """Figures on one held-out part; further fields hold the scorers by name."""

    __pydantic_extra__: dict[str, FiguresWithIntervals]
    counts: Counts
    resampled: Literal["prompts", "images"]
    """Unit of the bootstrap."""
    gain: dict[str, Gain]
    """Gain of the model over the CLIP score, by figure."""
    by_category: dict[str, dict[str, Figures]]
    """Figures of the model and of the CLIP score, by category of the prompts."""
    human: HumanFigures

    @property
    def scorers(self) -> dict[str, FiguresWithIntervals]:
        """Figures of the model and of its baselines."""
        return self.__pydantic_extra__

    @property
    def model(self) -> FiguresWithIntervals:
        """Figures of the reward model."""
        return self.scorers[MODEL]

    @property
    def clip_score(self) -> FiguresWithIntervals:
        """Figures of the CLIP score."""
        return self.scorers[CLIP_SCORE]


class PredictionFigures(BaseModel, frozen=True):
    """Figures of predicted labels of held-out raters."""

    nll: float
    """Mean negative log-likelihood."""
    roc_auc: float | None
    """ROC-AUC; None if all labels have one class."""


class TypeComparison(BaseModel, frozen=True):
    """Predictions of held-out raters' labels by one reward, and by one reward per rater type."""

    one: PredictionFigures | None = ABSENT
    several: PredictionFigures | None = ABSENT
    gain: Gain | None = ABSENT
    """Decrease of `nll` through several types; the interval is from resampled raters."""
    held_out_raters: int | None = ABSENT
    labels: int | None = ABSENT
    """Number of predicted labels."""


class TypesReport(TypeComparison, frozen=True):
    """The rater types; without a comparison if there are too few raters."""

    types: int
    prior: list[float]
    """Share of the raters in each type."""
    raters: list[int]
    """Number of raters by their most probable type."""


class MapsReport(BaseModel, frozen=True):
    """The predictor of maps."""

    images: int
    """Number of training images that raters looked at for faults."""
    aspects: dict[str, MapFigures]
    """Figures on held-out images, by what the marks speak of; empty without such images."""


class Evaluation(BaseModel, frozen=True):
    """Figures on every part of the labels."""

    train: dict[Literal["counts"], Counts]
    """Number of training labels of each kind."""
    val: PartReport
    test_seen: PartReport
    test_unseen: PartReport

    def part(self, name: str) -> PartReport:
        """Return the part of a name in `PARTS`."""
        part: PartReport = getattr(self, name)
        return part


class RewardReport(Evaluation, frozen=True):
    """All of `metrics.json`."""

    temperature: float
    sources: Counts
    """Labels by source: human, simulated, imported or adjudicator."""
    rater_types: TypesReport | None = ABSENT
    maps: MapsReport | None = ABSENT
    """The predictor of maps, if the labels have marks."""
