"""Figures for admins: the answers of the JSON routes, which the admin page draws."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from data.feedback import NotFound, Progress, Task
from data.store.people.reports import ReportedImage
from data.store.views.overview import (
    GivenLabel,
    LabelCount,
    PromptCount,
    counts_by_prompt,
    labels_by_hour,
    labels_of_tasks,
    latest_labels,
)
from labeling_app.app_state import AppState

STREAM = 30
"""Labels in the stream of the page."""

DISPUTES_SHOWN = 6
"""Disputed tasks that are shown at once; further tasks follow when these are decided."""

DECIDED_SHOWN = 6
"""Decided tasks that are shown, the latest first."""

AUDIT_SHOWN = 100
"""Entries of the trail that are shown."""

PROMPTS_SHOWN = 300
"""Largest number of prompts whose progress is shown: the prompts with the most labels missing."""

HOURS_SHOWN = 24
"""Clock hours whose labels are counted."""


@dataclass(frozen=True)
class Summary:
    """State of the campaign, with its latest labels."""

    paused: bool
    progress: Progress
    categories: list[LabelCount]
    prompts: list[PromptCount]
    """The up to 300 prompts with the most labels missing."""
    n_prompts: int
    hours: dict[datetime, int]
    """Labels by people in each of the last 24 clock hours, by the hour's beginning."""
    stream: list[GivenLabel]
    """The latest labels, newest first."""
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


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of the last export."""

    name: str
    rows: int
    bytes: int


def summarize(state: AppState) -> Summary:
    """Return the state of the campaign."""
    counts = counts_by_prompt(state.store, state.categories)
    this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [this_hour - timedelta(hours=ago) for ago in reversed(range(HOURS_SHOWN))]
    return Summary(
        paused=state.store.is_paused,
        progress=state.store.progress(),
        categories=_by_category(counts),
        prompts=sorted(counts, key=lambda one: (one.done - one.total, one.prompt, one.kind))[
            :PROMPTS_SHOWN
        ],
        n_prompts=len({one.prompt_id for one in counts}),
        hours=dict.fromkeys(hours, 0) | labels_by_hour(state.store, hours[0]),
        stream=latest_labels(state.store, limit=STREAM),
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
    by_task: dict[str, list[GivenLabel]] = {task_id: [] for task_id in (*shown, *settled)}
    for label in reversed(labels_of_tasks(state.store, by_task)):  # the oldest first
        by_task[label.task.task_id].append(label)

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


def _by_category(counts: Sequence[PromptCount]) -> list[LabelCount]:
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for one in counts:
        done, total = sums.get((one.category, one.kind), (0, 0))
        sums[one.category, one.kind] = done + one.done, total + one.total
    return [LabelCount(*key, *sums[key]) for key in sorted(sums)]
