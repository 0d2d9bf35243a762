"""Figures for admins: the answers of the JSON routes, which the admin page draws."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from data.feedback import NotFound
from data.kinds.registry import TaskKind
from data.store.views.overview import (
    GivenLabel,
    PromptCount,
    counts_by_prompt,
    labels_by_hour,
    labels_of_tasks,
    latest_labels,
)
from labeling_app.admin.responses import (
    AuditTrail,
    CampaignProgress,
    CategoryCount,
    Dispute,
    Disputes,
    HourCount,
    KindPlan,
    Plan,
    PromptProgress,
    Quality,
    ReportedImageView,
    Reports,
    StreamEntry,
    Summary,
    TableFile,
    Tables,
)
from labeling_app.app_state import AppState, image_url

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


def summarize(state: AppState) -> Summary:
    """Return the state of the campaign."""
    counts = counts_by_prompt(state.store)
    prompts = sorted(counts, key=lambda one: (one.done - one.total, one.prompt, one.kind))
    return Summary(
        paused=state.store.is_paused,
        progress=CampaignProgress(**vars(state.store.progress())),
        categories=_by_category(state, counts),
        prompts=[
            PromptProgress(**vars(one), category=state.categories.get(one.prompt_id, "other"))
            for one in prompts[:PROMPTS_SHOWN]
        ],
        n_prompts=len({one.prompt_id for one in counts}),
        hours=_hours(state),
        stream=[_stream_entry(label) for label in latest_labels(state.store, limit=STREAM)],
        last_export=state.health.last_export,
        export_error=state.health.export_error,
    )


def measure_quality(state: AppState) -> Quality:
    """Return agreement, each rater's figures and the disputes; takes seconds with many labels."""
    return Quality.model_validate(_judge(state))


def list_reports(state: AppState) -> Reports:
    """Return the reported images."""
    views: dict[bool, list[ReportedImageView]] = {False: [], True: []}
    for image in state.store.reports.images():
        view = ReportedImageView(**vars(image), url=image_url(image.image_id))
        views[image.removed].append(view)
    return Reports(open=views[False], removed=views[True])


def list_disputes(state: AppState) -> Disputes:
    """Return the disputed tasks and the decided tasks.

    The disputed tasks are the result of the last call of `measure_quality`; if it was never called,
    it is called now.
    """
    quality = state.quality_cache.quality
    found = (_judge(state) if quality is None else quality)["disputes"]
    decided = state.store.adjudications.task_ids()
    waiting = [one for one in found["tasks"] if one["task_id"] not in decided]
    shown = {one["task_id"]: one["disagreement"] for one in waiting[:DISPUTES_SHOWN]}
    latest = latest_labels(state.store, source="adjudicator", limit=DECIDED_SHOWN)
    settled = [label.task.task_id for label in latest]
    labels = labels_of_tasks(state.store, {*shown, *settled})
    by_task: dict[str, list[GivenLabel]] = {task_id: [] for task_id in (*shown, *settled)}
    for label in reversed(labels):  # the oldest first
        by_task[label.task.task_id].append(label)
    return Disputes(
        total=found["total"] - sum(one["task_id"] in decided for one in found["tasks"]),
        open=[_dispute(by_task[task_id], disagreement) for task_id, disagreement in shown.items()],
        n_decided=len(decided),
        decided=[_dispute(by_task[task_id], None) for task_id in settled],
    )


def list_audit(state: AppState, limit: int = AUDIT_SHOWN) -> AuditTrail:
    """Return the latest actions, newest first."""
    return AuditTrail(entries=state.store.audit.latest(limit))


def list_plan(state: AppState) -> Plan:
    """Return how many people are asked, by kind of task."""
    kinds = [
        KindPlan(kind=kind, smallest_overlap=low, largest_overlap=high)
        for kind, (low, high) in state.store.plan.overlaps().items()
    ]
    return Plan(kinds=kinds)


def list_tables(state: AppState) -> Tables:
    """Return the files of the last export; none before the first."""
    folder = None if state.tables is None else state.tables.resolve()
    try:
        assert folder is not None
        manifest = json.loads((folder / "_manifest.json").read_bytes())
        files = {name: facts["rows"] for name, facts in manifest["files"].items()}
        return Tables(
            tables=[
                TableFile(name=name, rows=rows, bytes=(folder / name).stat().st_size)
                for path, rows in sorted(files.items())
                if (name := path.removeprefix("latest/")) != path
            ]
        )
    except (AssertionError, OSError):
        return Tables(tables=[])


def table_file(state: AppState, name: str) -> Path:
    """Return the path of one file of the last export.

    Raises:
        NotFound: the export has no such file.
    """
    if state.tables is None or name not in {one.name for one in list_tables(state).tables}:
        raise NotFound(f"{name}: not of the last export; look at the list again")
    return state.tables.resolve() / name


def _judge(state: AppState) -> Mapping[str, Any]:
    found = state.quality_cache.quality = state.quality(state.categories)
    return found


def _hours(state: AppState) -> list[HourCount]:
    """Count labels in each of the last hours, also in hours without labels."""
    this = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    first = this - timedelta(hours=HOURS_SHOWN - 1)
    counts = labels_by_hour(state.store, first)
    hours = (first + timedelta(hours=number) for number in range(HOURS_SHOWN))
    return [HourCount(hour=hour, labels=counts.get(hour, 0)) for hour in hours]


def _by_category(state: AppState, counts: Sequence[PromptCount]) -> list[CategoryCount]:
    done: Counter[tuple[str, TaskKind]] = Counter()
    total: Counter[tuple[str, TaskKind]] = Counter()
    for count in counts:
        key = (state.categories.get(count.prompt_id, "other"), count.kind)
        done[key] += count.done
        total[key] += count.total
    return [
        CategoryCount(category=key[0], kind=key[1], done=done[key], total=total[key])
        for key in sorted(total)
    ]


def _stream_entry(label: GivenLabel) -> StreamEntry:
    return StreamEntry(**vars(label.task) | vars(label))


def _dispute(labels: Sequence[GivenLabel], disagreement: float | None) -> Dispute:
    answers = [_stream_entry(label) for label in labels]
    return Dispute(**vars(labels[0].task), disagreement=disagreement, answers=answers)
