"""Leases: the times for which raters have claimed tasks.

Each function works in its caller's transaction.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from statistics import median
from typing import Any

import sqlalchemy as sa

from data.feedback import Claim, NotFound, Source, Task
from data.kinds.registry import TaskKind
from data.store.queries import (
    EXCLUDED_TASKS,
    IS_WITHHELD,
    NOW,
    RATER,
    TASK,
    WITHHELD_TASKS,
    Row,
    find_row,
    is_of_kind,
    live_labels,
    load_task,
    read_setting,
)
from data.store.tables import labels, leases, raters, task_images, tasks, wordings

SHORTEST_S = 300.0
"""Shortest lease in seconds."""

TIMES_MEDIAN = 12
"""A lease lasts this many times the median time on task of recent labels, but at least
`SHORTEST_S`. A rater without a connection can then answer ten tasks in time."""

RECENT_LABELS = 101
"""Number of latest labels for the median time on task (the length of a lease) and for the raters at
work."""

LOOK_BACK = 1000
"""Number of latest labels that the search for recent ones reads. The limit matters if nobody labels
a kind of task now, or if labels have no times."""

IN_REACH = (
    labels.c.sequence > sa.select(sa.func.max(labels.c.sequence) - LOOK_BACK).scalar_subquery()
)
"""Condition: the label is among the latest `LOOK_BACK` labels."""

_IS_LEASE = sa.and_(leases.c.task_id == TASK, leases.c.rater_id == RATER)
_FIND = sa.select(leases).where(_IS_LEASE)
_FORGET = sa.delete(leases).where(_IS_LEASE)
_INSERT = sa.insert(leases)
_END_AT = sa.update(leases).where(_IS_LEASE).values(expires_at=sa.bindparam("end"))
_ANSWERED = sa.update(leases).where(_IS_LEASE).values(expires_at=None, aside_at=None)
_TIMES = (
    sa.select(labels.c.time_on_task_ms)
    .where(
        IN_REACH, labels.c.kind == sa.bindparam("of_kind"), labels.c.time_on_task_ms.is_not(None)
    )
    .order_by(labels.c.sequence.desc())
    .limit(RECENT_LABELS)
)


@dataclass(frozen=True)
class ClaimRequest:
    """A rater's request for a task of one kind or of any kind, within one transaction."""

    connection: sa.Connection
    rater: Row
    kind: TaskKind | None
    now: datetime


def find_lease(connection: sa.Connection, task_id: str, rater_id: str) -> Row | None:
    """Return the lease of the rater on the task, live or not."""
    return connection.execute(_FIND, {"of_task": task_id, "of_rater": rater_id}).one_or_none()


def give_lease(connection: sa.Connection, task_id: str, rater_id: str, **values: object) -> None:
    """Make a lease in place of the rater's earlier one on the task."""
    connection.execute(_FORGET, {"of_task": task_id, "of_rater": rater_id})
    connection.execute(_INSERT, {"task_id": task_id, "rater_id": rater_id, **values})


def close_lease(connection: sa.Connection, task_id: str, rater_id: str) -> None:
    """End the rater's lease on the task because it was answered."""
    connection.execute(_ANSWERED, {"of_task": task_id, "of_rater": rater_id})


def end_lease(connection: sa.Connection, task_id: str, rater_id: str, end: datetime) -> None:
    """Let the rater's lease on the task end at this moment."""
    connection.execute(_END_AT, {"of_task": task_id, "of_rater": rater_id, "end": end})


def renew_lease(connection: sa.Connection, task: Task, rater_id: str, now: datetime) -> datetime:
    """Restart the rater's lease on the task; return the time of its end."""
    end = lease_end(connection, task.kind, now)
    end_lease(connection, task.task_id, rater_id, end)
    return end


def lease_end(connection: sa.Connection, kind: TaskKind, now: datetime) -> datetime:
    """Return the end of a lease that begins now.

    Its length follows the median time on task of the latest labels of the kind.
    """
    times_ms = connection.scalars(_TIMES, {"of_kind": kind}).all()
    median_s = median(times_ms) / 1000 if times_ms else 0
    return now + timedelta(seconds=max(SHORTEST_S, TIMES_MEDIAN * median_s))


def hand_out(
    request: ClaimRequest, task: Task, shown_order: list[int], aside_at: datetime | None = None
) -> Claim:
    """Lease a task to the rater, with the current wording of its axis.

    `aside_at` is the time at which the rater put the task aside.
    """
    connection, now = request.connection, request.now
    wording = present_wording(connection, task)
    shown = {"shown_order": shown_order, "shown_at": now, "wording": wording}
    end = lease_end(connection, task.kind, now)
    give_lease(connection, task.task_id, request.rater.rater_id, **shown, expires_at=end)
    words = wording_text(connection, wording)
    return Claim(task, end, tuple(shown_order), now, words, aside_at)


def hand_out_again(request: ClaimRequest, lease: Row) -> Claim:
    """Renew a live lease; order of images and wording stay the same."""
    connection = request.connection
    task = load_task(connection, lease.task_id)
    end = renew_lease(connection, task, lease.rater_id, request.now)
    words = wording_text(connection, lease.wording)
    return Claim(task, end, tuple(lease.shown_order), lease.shown_at, words)


def present_wording(connection: sa.Connection, task: Task) -> str | None:
    """Return the version of the axis's current wording; None without a wording."""
    return None if task.axis is None else read_setting(connection, f"wording {task.axis}")


def wording_text(connection: sa.Connection, version: str | None) -> str | None:
    """Return the text of a version of a wording; None without a version."""
    row = None if version is None else find_row(connection, wordings, version)
    return None if row is None else str(row.text)


def is_over(lease: Row, now: datetime) -> bool:
    """Whether the lease has ended or its task was answered."""
    return lease.expires_at is None or lease.expires_at <= now


def live_leases(source: Source) -> sa.ColumnElement[int]:
    """Return the number of a task's live leases by raters of this source."""
    has_such_places = (
        raters.c.source == "simulated" if source == "simulated" else raters.c.source != "simulated"
    )
    holders = (
        sa.select(sa.func.count())
        .select_from(leases)
        .join(raters, raters.c.rater_id == leases.c.rater_id)
    )
    return holders.where(
        leases.c.task_id == tasks.c.task_id, leases.c.expires_at > NOW, has_such_places
    ).scalar_subquery()


@cache
def _free_places(source: Source) -> sa.Select[Any]:
    free = tasks.c.overlap - live_labels(source) - live_leases(source)
    return sa.select(free).where(tasks.c.task_id == TASK, ~IS_WITHHELD)


def has_place(connection: sa.Connection, task_id: str, source: Source, now: datetime) -> bool:
    """Whether one more rater of this source can get the task.

    This holds if the live labels and live leases of such raters are fewer than the overlap, and no
    image of the task is withheld.
    """
    values = {"of_task": task_id, "now": now}
    return bool((connection.scalar(_free_places(source), values) or 0) > 0)


def check_hold(connection: sa.Connection, rater: Row, task_id: str, now: datetime) -> None:
    """Check that the rater holds the task, or that it still has a free place.

    Raises:
        NotFound: the rater does not hold the task, and it has no free place.
    """
    lease = find_lease(connection, task_id, rater.rater_id)
    if lease is None or lease.expires_at is None:
        raise NotFound(f"task {task_id}: not held by this rater; claim a task first")
    if withheld_tasks(connection, [task_id]):
        raise NotFound(
            f"task {task_id}: an image of it was reported; "
            "claim another task, an answer is still accepted"
        )
    if lease.expires_at <= now and not has_place(connection, task_id, rater.source, now):
        raise NotFound(
            f"task {task_id}: the hold has run out and others have taken the place; "
            "an answer is still accepted"
        )


def withheld_tasks(connection: sa.Connection, task_ids: Collection[str]) -> list[str]:
    """Select the tasks with an image that is out of circulation."""
    among = WITHHELD_TASKS.where(task_images.c.task_id.in_(task_ids))
    return list(connection.scalars(among.distinct()))


@cache
def _live_of_rater(kind: TaskKind | None) -> sa.Select[Any]:
    return (
        sa.select(leases)
        .join(tasks, tasks.c.task_id == leases.c.task_id)
        .where(leases.c.rater_id == RATER, leases.c.expires_at > NOW, leases.c.aside_at.is_(None))
        .where(leases.c.task_id.not_in(EXCLUDED_TASKS), is_of_kind(kind), ~IS_WITHHELD)
        .order_by(
            leases.c.task_id != sa.bindparam("wanted"), leases.c.shown_at.desc(), leases.c.task_id
        )
        .limit(1)
    )


def live_lease(request: ClaimRequest, excluding: Collection[str], wanted: str | None) -> Row | None:
    """Return the rater's live lease on the task `wanted`, or else the rater's latest live lease.

    Leases on the tasks `excluding`, and on tasks put aside, do not count. After an undo, the latest
    lease is the lease of the undone task.
    """
    values = {
        "of_rater": request.rater.rater_id,
        "now": request.now,
        "excluding": list(excluding),
        "wanted": wanted or "",
    }
    return request.connection.execute(_live_of_rater(request.kind), values).one_or_none()
