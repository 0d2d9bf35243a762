"""JSON answers of the admins' part of the HTTP interface."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from data.feedback import Decision, Source, Status, TaskKind
from data.store.reports import Report
from labeling_app.responses import GivenComparison, GivenVerdict

Share = float | None
"""Between 0 and 1; null where there is nothing to count."""


class CampaignProgress(BaseModel, frozen=True):
    """Progress of the labeling, in labels by people."""

    done: int
    total: int
    seconds_left: float | None


class CategoryCount(BaseModel, frozen=True):
    """Progress of one category and kind of task."""

    category: str
    kind: TaskKind
    done: int
    total: int


class StreamRanks(BaseModel, frozen=True):
    """An answer given to a ranking, without remarks that were not made."""

    ranks: dict[str, int | None]
    reason: Annotated[str | None, Field(exclude_if=lambda text: text is None)] = None
    comment: Annotated[str | None, Field(exclude_if=lambda text: text is None)] = None
    unsafe: Annotated[tuple[str, ...], Field(exclude_if=lambda image_ids: not image_ids)] = ()


class StreamEntry(BaseModel, frozen=True):
    """One of the latest labels."""

    rater: str
    """The rater's name."""
    kind: TaskKind
    prompt: str
    answer: GivenVerdict | StreamRanks | GivenComparison
    submitted_at: datetime
    revision: int


class Summary(BaseModel, frozen=True):
    """State of the campaign, with its latest labels."""

    paused: bool
    progress: CampaignProgress
    categories: list[CategoryCount]
    stream: list[StreamEntry]
    """Newest first."""
    last_export: datetime | None
    export_error: str | None


class RaterQuality(BaseModel, frozen=True):
    """One rater's figures: the columns of `data.schema.RATERS`, described in `docs/analysts.md`."""

    rater_id: str
    """The store's own id; the exported one is `public_id`."""
    source: Source
    joined_at: datetime
    n: int
    n_skipped: int
    gold_n: int
    gold_accuracy: Share
    median_ms: float | None
    status: Status | None
    gold_ci_low: Share
    gold_ci_high: Share
    gold_good_n: int | None
    gold_good_accuracy: Share
    gold_good_ci_low: Share
    gold_good_ci_high: Share
    gold_bad_n: int | None
    gold_bad_accuracy: Share
    gold_bad_ci_low: Share
    gold_bad_ci_high: Share
    repeat_n: int | None
    self_consistency: Share
    first_place_n: int | None
    first_place_wins: Share
    first_place_ci_low: Share
    first_place_ci_high: Share
    first_place_expected: Share
    median_active_ms: float | None
    others_n: int | None
    others_agreement: Share
    skill: Share
    ds_sensitivity: Share
    ds_specificity: Share
    public_id: str
    name: str


class Alpha(BaseModel, frozen=True):
    """Krippendorff's alpha with its 95 % interval; null where there is nothing to compare."""

    alpha: float | None
    alpha_ci_low: float | None
    alpha_ci_high: float | None
    n_tasks: int
    """Tasks with labels of several raters."""
    n_labels: int


class _OfCategory(BaseModel, frozen=True):
    category: str


class CategoryAlpha(Alpha, _OfCategory, frozen=True):  # in JSON, fields of the last base come first
    """Alpha of one category."""


class KindAlpha(Alpha, frozen=True):
    """Alpha of one kind of task, and of each of its categories."""

    categories: list[CategoryAlpha]


class Agreement(BaseModel, frozen=True):
    """Agreement of raters: nominal alpha of verdicts, ordinal alpha of ranks."""

    source: Source
    """Whose labels are compared: people's, or others where there are none by people."""
    binary: KindAlpha
    ranking: KindAlpha


class Quality(BaseModel, frozen=True):
    """Figures on how far labels can be trusted (`data.quality.campaign_quality`)."""

    raters: list[RaterQuality]
    """In the order in which they joined."""
    agreement: Agreement


class ReportedImageView(BaseModel, frozen=True):
    """An image that is out of circulation."""

    image_id: str
    prompt: str
    reports: Sequence[Report]
    """Those that keep it out, oldest first."""
    url: str


class Reports(BaseModel, frozen=True):
    """The images that no rater is shown, the one reported first at the beginning."""

    open: list[ReportedImageView]
    """Those that wait for a decision."""
    removed: list[ReportedImageView]


class Decided(BaseModel, frozen=True):
    """An admin's decision about an image."""

    decision: Decision


class Exported(BaseModel, frozen=True):
    """The time of the last export."""

    last_export: datetime | None


class PauseState(BaseModel, frozen=True):
    """State of the rater, or of the campaign, after the call."""

    paused: bool
