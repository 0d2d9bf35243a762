"""JSON answers of the admins' part of the HTTP interface."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, create_model

from data.feedback import Decision, Role, Source, Status
from data.kinds.registry import AnyAnswer, TaskKind
from data.schema import MOMENT, RATERS
from data.store.people.audit import AuditEntry
from data.store.people.reports import Report

Share = float | None
"""Share between 0 and 1; null if there is nothing to count."""


class CampaignProgress(BaseModel, frozen=True):
    """Progress of the labeling, in labels by people."""

    done: int
    total: int
    seconds_left: float | None
    """Estimated active time of the remaining labels, summed over raters; null while there are too
    few labels for an estimate."""


class CategoryCount(BaseModel, frozen=True):
    """Progress of one category and kind of task."""

    category: str
    kind: TaskKind
    done: int
    total: int


class PromptProgress(CategoryCount, frozen=True):
    """Progress of one prompt and kind of task."""

    prompt: str


class HourCount(BaseModel, frozen=True):
    """Labels by people in one hour of the clock."""

    hour: datetime
    """Its beginning."""
    labels: int


class StreamEntry(BaseModel, frozen=True):
    """One of the latest labels."""

    rater: str
    """The rater's name."""
    source: Source
    kind: TaskKind
    prompt: str
    image_ids: list[str]
    answer: AnyAnswer
    submitted_at: datetime
    revision: int


class Summary(BaseModel, frozen=True):
    """State of the campaign, with its latest labels."""

    paused: bool
    progress: CampaignProgress
    categories: list[CategoryCount]
    prompts: list[PromptProgress]
    """The up to 300 prompts with the most labels missing."""
    n_prompts: int
    hours: list[HourCount]
    """The last 24 hours, the oldest first."""
    stream: list[StreamEntry]
    """The latest labels, newest first."""
    last_export: datetime | None
    export_error: str | None


def _as_field(column: pa.Field) -> Any:
    """Return the type of a table's column, with its description, as a field of a model."""
    kinds = {pa.string(): str, pa.int32(): int, pa.float32(): float, MOMENT: datetime}
    kind: Any = kinds[column.type]
    about = (column.metadata or {})[b"description"].decode()
    return Annotated[kind | None if column.nullable else kind, Field(description=about)]


_COLUMNS: dict[str, Any] = {column.name: _as_field(column) for column in RATERS}
_OfTable: Any = create_model("_OfTable", __config__=ConfigDict(frozen=True), **_COLUMNS)


class RaterQuality(_OfTable):  # type: ignore[misc]  # made of the table's columns
    """One rater's figures: the columns of `data.schema.RATERS`, described in `docs/analysts.md`."""

    rater_id: str
    """The store's own id; the exported one is `public_id`."""
    source: Source
    status: Status | None
    timed_n: int
    quick_n: int
    quick_p: float | None
    first_place_p: float | None
    sided_n: int
    left_n: int
    one_side_p: float | None
    flags: tuple[Literal["quick", "first_place", "one_side"], ...]
    """Habits of a rater who does not look (`data.quality.habits`)."""
    public_id: str
    name: str
    role: Role
    share: Share
    """Largest share of the wanted labels that the rater may give; null for no limit."""


class DisputeFound(BaseModel, frozen=True):
    """A task that raters disagree on."""

    task_id: str
    kind: TaskKind
    disagreement: float
    """Share of pairs of raters who differ (`data.quality.disputes`)."""
    n_raters: int


class DisputesFound(BaseModel, frozen=True):
    """The tasks that raters disagree on."""

    total: int
    tasks: list[DisputeFound]
    """The up to 100 most disputed tasks, the most disputed first."""


class Alpha(BaseModel, frozen=True):
    """Krippendorff's alpha with its 95 % interval; null without labels to compare."""

    alpha: float | None
    alpha_ci_low: float | None
    alpha_ci_high: float | None
    n_tasks: int
    """Tasks with labels of several raters."""
    n_labels: int


class CategoryAlpha(Alpha, frozen=True):
    """Alpha of one category."""

    category: str


class KindAlpha(Alpha, frozen=True):
    """Alpha of one kind of task, and of each of its categories."""

    categories: list[CategoryAlpha]


class Agreement(BaseModel, frozen=True):
    """Agreement of raters: nominal alpha of verdicts, ordinal alpha of ranks."""

    source: Source
    """Source of the compared labels: people, or other raters without labels by people."""
    binary: KindAlpha
    ranking: KindAlpha


class Quality(BaseModel, frozen=True):
    """Figures on the quality of labels (`data.quality.campaign.campaign_quality`)."""

    raters: list[RaterQuality]
    """Raters in order of joining."""
    agreement: Agreement
    disputes: DisputesFound


class Dispute(BaseModel, frozen=True):
    """A task with all its answers."""

    task_id: str
    kind: TaskKind
    prompt: str
    image_ids: list[str]
    disagreement: float | None
    """Share of pairs of raters who differ; null if it was not computed."""
    answers: list[StreamEntry]
    """Answers, the oldest first; an admin's decision has the source `adjudicator`."""


class Disputes(BaseModel, frozen=True):
    """Disputed tasks and decided tasks."""

    total: int
    """Disputed tasks that wait for a decision."""
    open: list[Dispute]
    """The most disputed tasks."""
    n_decided: int
    decided: list[Dispute]
    """Decided tasks, the latest first."""


class Adjudicated(BaseModel, frozen=True):
    """Receipt of an answer in the raters' place."""

    label_id: str
    revision: int


class KindPlan(BaseModel, frozen=True):
    """Overlap of the tasks of one kind, checks omitted."""

    kind: TaskKind
    smallest_overlap: int
    largest_overlap: int


class Plan(BaseModel, frozen=True):
    """Overlap of tasks (the number of people who answer), by kind of task."""

    kinds: list[KindPlan]


class GoldAdded(BaseModel, frozen=True):
    """Numbers of gold tasks."""

    tasks: int
    """Rows of the file."""
    new: int
    """Tasks that were not in the campaign before."""


class NewPassword(BaseModel, frozen=True):
    """A rater's new password, which nobody can read again."""

    rater: str
    role: Role
    password: str


class AuditTrail(BaseModel, frozen=True):
    """Actions of admins."""

    entries: Sequence[AuditEntry]
    """Actions, newest first."""


class TableFile(BaseModel, frozen=True):
    """A Parquet file of the last export."""

    name: str
    rows: int
    bytes: int


class Tables(BaseModel, frozen=True):
    """The Parquet files of the last export."""

    tables: list[TableFile]


class ReportedImageView(BaseModel, frozen=True):
    """An image that is out of circulation or has an undecided report."""

    image_id: str
    prompt: str
    withheld: bool
    """Whether the image is hidden from raters; false if its rater had too many open reports."""
    reports: Sequence[Report]
    """Unsettled reports, oldest first."""
    url: str


class Reports(BaseModel, frozen=True):
    """The reported images, in order of their first report."""

    open: list[ReportedImageView]
    """Images that wait for a decision."""
    removed: list[ReportedImageView]


class Decided(BaseModel, frozen=True):
    """An admin's decision about an image."""

    decision: Decision


class PutBack(BaseModel, frozen=True):
    """Reports of a rater that an admin closed."""

    images: int


class Exported(BaseModel, frozen=True):
    """The time of the last export."""

    last_export: datetime | None


class PauseState(BaseModel, frozen=True):
    """State of the rater, or of the campaign, after the call."""

    paused: bool
