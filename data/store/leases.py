"""Leases: which rater has claimed which task until when.

Each function works in its caller's transaction.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa

from data.feedback import Claim, LeaseConfig, NotFound, Source, Task
from data.kinds.registry import TaskKind
from data.store.conditions import (
    EXCLUDED_TASKS,
    IS_WITHHELD,
    NOW,
    RATER,
    TASK,
    is_of_kind,
    live_labels,
)
from data.store.people.reports import withheld_tasks
from data.store.plan.comparing import present_wording, wording_texts
from data.store.queries import Row
from data.store.tables import leases, raters, tasks
from data.store.views.progress import median_seconds

_IS_LEASE = sa.and_(leases.c.task_id == TASK, leases.c.rater_id == RATER)
_FIND = sa.select(leases).where(_IS_LEASE)
_FORGET = sa.delete(leases).where(_IS_LEASE)
_INSERT = sa.insert(leases)
_END_AT = sa.update(leases).where(_IS_LEASE).values(expires_at=sa.bindparam("end"))
_ANSWERED = sa.update(leases).where(_IS_LEASE).values(expires_at=None, aside_at=None)


def find_lease(connection: sa.Connection, task_id: str, rater_id: str) -> Row | None:
    """Return the lease of the rater on the task, live or not."""
    return connection.execute(_FIND, {"of_task": task_id, "of_rater": rater_id}).one_or_none()


def give_lease(connection: sa.Connection, task_id: str, rater_id: str, **values: object) -> None:
    """Make a lease in place of the rater's earlier one on the task."""
    connection.execute(_FORGET, {"of_task": task_id, "of_rater": rater_id})
    connection.execute(_INSERT, {"task_id": task_id, "rater_id": rater_id, **values})


def end_lease(connection: sa.Connection, task_id: str, rater_id: str) -> None:
    """End the rater's lease on the task now, because it was answered."""
    connection.execute(_ANSWERED, {"of_task": task_id, "of_rater": rater_id})


def release_lease(connection: sa.Connection, task_id: str, rater_id: str, now: datetime) -> None:
    """Let others have the rater's place now."""
    connection.execute(_END_AT, {"of_task": task_id, "of_rater": rater_id, "end": now})


def hand_out(
    connection: sa.Connection,
    task: Task,
    rater_id: str,
    now: datetime,
    *,
    config: LeaseConfig,
    shown_order: list[int],
    aside_at: datetime | None = None,
) -> Claim:
    """Lease a task to the rater, to be shown now with the present words of its axis.

    `aside_at` is when the rater had put it aside.
    """
    wording = present_wording(connection, task)
    expires_at = lease_task(
        connection, task, rater_id, now, config=config, shown_order=shown_order, wording=wording
    )
    words = wording_texts(connection, [wording]).get(wording)
    return Claim(task, expires_at, tuple(shown_order), now, words, aside_at)


def lease_task(
    connection: sa.Connection,
    task: Task,
    rater_id: str,
    now: datetime,
    *,
    config: LeaseConfig,
    shown_order: list[int],
    wording: str | None = None,
) -> datetime:
    """Lease a task that is shown now to the rater; return when the lease will run out.

    `wording` is the version of the words with which a comparison is asked.
    """
    expires_at = _lease_end(connection, task.kind, now, config)
    values = {
        "shown_order": shown_order,
        "shown_at": now,
        "expires_at": expires_at,
        "wording": wording,
    }
    give_lease(connection, task.task_id, rater_id, **values)
    return expires_at


def renew_lease(
    connection: sa.Connection, task: Task, rater_id: str, now: datetime, *, config: LeaseConfig
) -> datetime:
    """Let the rater's lease on the task begin again; return when it will run out."""
    expires_at = _lease_end(connection, task.kind, now, config)
    connection.execute(_END_AT, {"of_task": task.task_id, "of_rater": rater_id, "end": expires_at})
    return expires_at


def _lease_end(
    connection: sa.Connection, kind: TaskKind, now: datetime, config: LeaseConfig
) -> datetime:
    by_median_s = config.times_median * median_seconds(connection, kind)
    return now + timedelta(seconds=max(config.shortest_s, by_median_s))


def is_over(lease: Row, now: datetime) -> bool:
    """Whether the lease has run out or its task was answered."""
    return lease.expires_at is None or lease.expires_at <= now


def live_leases(source: Source) -> sa.ColumnElement[int]:
    """Return the number of a task's live leases in the places of raters of this source."""
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
    """Whether the task can be given to one more rater of this source.

    It can when live labels and live leases of such raters are fewer than its overlap and none of
    its images is withheld.
    """
    values = {"of_task": task_id, "now": now}
    return bool((connection.scalar(_free_places(source), values) or 0) > 0)


def check_hold(connection: sa.Connection, rater: Row, task_id: str, now: datetime) -> None:
    """Check that the rater holds the task, or that nobody has taken the place since.

    Raises:
        NotFound: neither.
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


@cache
def _live_of_rater(kind: TaskKind | None) -> sa.Select[Any]:
    return (
        sa.select(leases)
        .join(tasks, tasks.c.task_id == leases.c.task_id)
        .where(
            leases.c.rater_id == RATER,
            leases.c.expires_at > NOW,
            leases.c.aside_at.is_(None),
            leases.c.task_id.not_in(EXCLUDED_TASKS),
            is_of_kind(kind),
            ~IS_WITHHELD,
        )
        .order_by(
            leases.c.task_id != sa.bindparam("wanted"),
            leases.c.shown_at.desc(),
            leases.c.task_id,
        )
        .limit(1)
    )


def live_lease(
    connection: sa.Connection,
    rater_id: str,
    kind: TaskKind | None,
    now: datetime,
    excluding: Collection[str] = (),
    *,
    wanted: str | None = None,
) -> Row | None:
    """Return the rater's live lease on the task `wanted`, or else the one that was given last.

    It is never of one of the tasks `excluding`, nor of one that the rater has put aside. After an
    undo the last one is the lease of the task whose answer was taken back.
    """
    values = {
        "of_rater": rater_id,
        "now": now,
        "excluding": list(excluding),
        "wanted": wanted or "",
    }
    return connection.execute(_live_of_rater(kind), values).one_or_none()
