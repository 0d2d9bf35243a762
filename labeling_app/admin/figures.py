"""Figures for admins, which the admin page draws."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field

from data.feedback import NotFound, Progress, Source, Task
from data.kinds.registry import TaskKind
from data.store.people.reports import ReportedImage
from data.store.views.overview import (
    AnswerGroup,
    GivenLabel,
    LabelCount,
    active_times,
    counts_by_category,
    labels_by_hour,
    labels_of_tasks,
    latest_labels,
    matching,
)
from labeling_app.app_state import AppState
from labeling_app.sign_in import Name

LABELS_SHOWN = 24
"""Labels whose tasks are on a page of the browser of labels."""

DISPUTES_SHOWN = 6
"""Disputed tasks that are shown at once; further tasks follow when these are decided."""

DECIDED_SHOWN = 6
"""Decided tasks that are shown, the latest first."""

AUDIT_SHOWN = 100
"""Entries of the trail that are shown."""

HOURS_SHOWN = 24
"""Clock hours whose labels are counted."""


@dataclass(frozen=True)
class Summary:
    """State of the campaign."""

    paused: bool
    progress: Progress
    categories: list[LabelCount]
    seconds_left: float | None
    """Active time of the labels that are still wanted, summed over raters, from the mean of recent
    labels of each kind; None while a wanted kind has too few."""
    hours: dict[datetime, int]
    """Labels by people in each of the last 24 clock hours, by the hour's beginning."""
    last_export: datetime | None
    export_error: str | None


@dataclass(frozen=True)
class Reports:
    """The reported images, in order of their first report."""

    open: list[ReportedImage]
    """Images that wait for a decision."""
    removed: list[ReportedImage]


@dataclass(frozen=True)
class Dispute:
    """A task with all its answers."""

    task: Task
    disagreement: float | None
    """Share of pairs of raters who differ; null for a decided task."""
    answers: Sequence[GivenLabel]
    """Answers, the oldest first; an admin's decision has the source `adjudicator`."""


@dataclass(frozen=True)
class Disputes:
    """Disputed tasks and decided tasks."""

    total: int = 0
    """Disputed tasks that wait for a decision."""
    open: Sequence[Dispute] = ()
    """The most disputed tasks."""
    n_decided: int = 0
    decided: Sequence[Dispute] = ()
    """Decided tasks, the latest first."""


class WantedLabels(BaseModel, frozen=True, extra="forbid"):
    """Filters of labels; a field without a value excludes nothing."""

    rater: Name | None = None
    """Name of a person."""
    source: Source | None = None
    words: Annotated[str, Field(max_length=200)] = ""
    """Words of the prompt, also parts of words."""
    kind: TaskKind | None = None
    answer: AnswerGroup | None = None
    until: AwareDatetime | None = None
    """Latest time of the answer."""
    before: Annotated[int, Field(ge=1)] | None = None
    """Sequence number; only earlier labels."""


@dataclass(frozen=True)
class LabelPage:
    """Tasks of labels that were asked for, the newest label first."""

    tasks: Sequence[Sequence[GivenLabel]]
    """All raters' answers to each task, the oldest first."""
    next_before: int | None
    """Value of `before` for the next page; null on the last page."""


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of the last export."""

    name: str
    rows: int
    bytes: int


def summarize(state: AppState) -> Summary:
    """Return the state of the campaign."""
    counts, times = counts_by_category(state.store, state.categories), active_times(state.store)
    left = [(one.kind, one.total - one.done) for one in counts if one.total > one.done]
    is_known = all(kind in times for kind, _ in left)
    this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [this_hour - timedelta(hours=ago) for ago in reversed(range(HOURS_SHOWN))]
    return Summary(
        paused=state.store.is_paused,
        progress=state.store.progress(),
        categories=counts,
        seconds_left=sum(n * times[kind] for kind, n in left) / 1000 if is_known else None,
        hours=dict.fromkeys(hours, 0) | labels_by_hour(state.store, hours[0]),
        last_export=state.health.last_export,
        export_error=state.health.export_error,
    )


def measure_quality(state: AppState) -> Mapping[str, Any]:
    """Return agreement, each rater's figures and the disputes; takes seconds with many labels."""
    if state.quality is None:
        from data.quality.campaign import campaign_quality  # noqa: PLC0415 - loads for seconds

        found: Mapping[str, Any] = campaign_quality(state.store, state.categories)
    else:
        found = state.quality(state.categories)
    state.latest_quality = found
    return found


def find_labels(state: AppState, wanted: WantedLabels) -> LabelPage:
    """Return one page of tasks with their answers.

    Raises:
        NotFound: no rater has this name.
    """
    rater = state.store.raters.find(wanted.rater) if wanted.rater else None
    if wanted.rater and rater is None:
        raise NotFound(f"no rater is called {wanted.rater}")
    found = latest_labels(
        state.store,
        rater_id=None if rater is None else rater.rater_id,
        source=wanted.source,
        among=matching(wanted.before, wanted.words, wanted.kind, wanted.answer, wanted.until),
        limit=LABELS_SHOWN + 1,
    )
    shown, older = found[:LABELS_SHOWN], found[LABELS_SHOWN:]
    by_task = _by_task(state, [one.task.task_id for one in shown])
    return LabelPage(list(by_task.values()), shown[-1].sequence if older else None)


def _by_task(state: AppState, task_ids: Iterable[str]) -> dict[str, list[GivenLabel]]:
    """Return the live labels of each task, the oldest first."""
    by_task: dict[str, list[GivenLabel]] = {task_id: [] for task_id in task_ids}
    for label in reversed(labels_of_tasks(state.store, by_task)):
        by_task[label.task.task_id].append(label)
    return by_task


def list_reports(state: AppState) -> Reports:
    """Return the reported images."""
    images = state.store.reports.images()
    return Reports(
        [image for image in images if not image.removed],
        [image for image in images if image.removed],
    )


def list_disputes(state: AppState) -> Disputes:
    """Return the disputed tasks and the decided tasks.

    The disputed tasks are the result of the last call of `measure_quality`; if it was never called,
    it is called now.
    """
    found = (state.latest_quality or measure_quality(state))["disputes"]
    decided = state.store.adjudications.task_ids()
    waiting = [one for one in found["tasks"] if one["task_id"] not in decided]
    shown = {one["task_id"]: one["disagreement"] for one in waiting[:DISPUTES_SHOWN]}
    latest = latest_labels(state.store, source="adjudicator", limit=DECIDED_SHOWN)
    settled = [label.task.task_id for label in latest]
    by_task = _by_task(state, (*shown, *settled))

    def dispute(task_id: str) -> Dispute:
        return Dispute(by_task[task_id][0].task, shown.get(task_id), by_task[task_id])

    return Disputes(
        found["total"] - sum(one["task_id"] in decided for one in found["tasks"]),
        [dispute(task_id) for task_id in shown if by_task[task_id]],
        len(decided),
        [dispute(task_id) for task_id in settled if by_task[task_id]],
    )


def list_tables(state: AppState) -> list[TableFile]:
    """Return the files of the last export; none before the first."""
    if state.tables is None or not (state.tables / "_manifest.json").exists():
        return []
    folder = state.tables.resolve()
    files = json.loads((folder / "_manifest.json").read_bytes())["files"]
    return [
        TableFile(name, facts["rows"], (folder / name).stat().st_size)
        for path, facts in sorted(files.items())
        if (name := path.removeprefix("latest/")) != path
    ]


def table_file(state: AppState, name: str) -> Path:
    """Return the path of one file of the last export.

    Raises:
        NotFound: the export has no such file.
    """
    if state.tables is None or name not in {one.name for one in list_tables(state)}:
        raise NotFound(f"{name}: not of the last export; look at the list again")
    return state.tables.resolve() / name
