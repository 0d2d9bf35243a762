"""The queue of tasks: which one a rater is given next.

Each function works in its caller's transaction.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from data.feedback import Source
from data.kinds.registry import TaskKind
from data.store.conditions import (
    EXCLUDED_TASKS,
    IS_WITHHELD,
    NO_CHECK,
    RATER,
    SPENT_AXES,
    is_of_kind,
    live_labels,
)
from data.store.leases import has_place, live_leases
from data.store.plan.comparing import spent_axes
from data.store.queries import Row
from data.store.tables import labels, leases, tasks

REPEAT_AFTER = 10
"""A task may be repeated once its rater has given this many other answers."""

REPEAT_AMONG = 100
"""A repeat is drawn among so many of the rater's earlier answers."""


@cache
def _first_free(
    source: Source, kind: TaskKind | None, *, gold: bool, skip_locked: bool
) -> sa.Select[Any]:
    n_live = live_labels(source)
    # "is not false" keeps SQLite from looking through all labels of the rater for each task: it
    # takes the index of task and rater.
    answered = sa.exists().where(
        labels.c.task_id == tasks.c.task_id,
        labels.c.rater_id == RATER,
        labels.c.is_live.is_not(sa.false()),
    )
    open_axes = sa.or_(tasks.c.axis.is_(None), tasks.c.axis.not_in(SPENT_AXES))
    first_in_order = (n_live,) if gold else (tasks.c.priority.desc(),)
    return (
        sa.select(tasks.c.task_id)
        # the first condition is the queue index's own
        .where(
            n_live < tasks.c.overlap,
            n_live + live_leases(source) < tasks.c.overlap,
            ~answered,
            is_of_kind(kind),
        )
        .where(
            tasks.c.gold_source.is_not(None) if gold else NO_CHECK,
            tasks.c.task_id.not_in(EXCLUDED_TASKS),
            open_axes,
        )
        .where(~IS_WITHHELD)
        .order_by(*first_in_order, tasks.c.order_key)
        .limit(1)
        .with_for_update(skip_locked=skip_locked, of=tasks)
    )


def free_task(
    connection: sa.Connection,
    rater: Row,
    kind: TaskKind | None,
    now: datetime,
    excluding: Collection[str] = (),
    *,
    gold: bool = False,
) -> str | None:
    """Return the id of the first task with a place left that the rater has not answered, locked.

    With `gold` it is the hidden gold task with the fewest answers.
    """
    values = {
        "of_rater": rater.rater_id,
        "now": now,
        "excluding": list(excluding),
        "spent": spent_axes(connection, rater.rater_id, now),
    }
    if connection.dialect.name == "sqlite":  # its write transaction is alone
        first: str | None = connection.scalar(
            _first_free(rater.source, kind, gold=gold, skip_locked=False), values
        )
        return first
    # On PostgreSQL, tasks that another claim is deciding on are passed over, and waited for only
    # when there are no others.
    for skip_locked in (True, False):
        query = _first_free(rater.source, kind, gold=gold, skip_locked=skip_locked)
        while (task_id := connection.scalar(query, values)) is not None:
            # The query may have seen the leases from before another claim's commit: look again,
            # now under the lock.
            if has_place(connection, task_id, rater.source, now):
                return str(task_id)
    return None


def repeatable_tasks(
    connection: sa.Connection, rater_id: str, kind: TaskKind | None
) -> Sequence[str]:
    """Return tasks, no checks, that the rater answered a while ago and was not asked again.

    A comparison is never repeated: a rater sees no pair twice.
    """
    again = tasks.alias()
    repeated = sa.exists().where(
        again.c.repeat_of == tasks.c.task_id,
        again.c.task_id == leases.c.task_id,
        leases.c.rater_id == rater_id,
    )
    answered = (
        sa.select(labels.c.task_id)
        .join(tasks, tasks.c.task_id == labels.c.task_id)
        .where(labels.c.rater_id == rater_id, labels.c.is_live)
        .where(NO_CHECK, tasks.c.axis.is_(None), is_of_kind(kind), ~IS_WITHHELD)
        .order_by(labels.c.sequence.desc())
    )
    earlier = answered.offset(REPEAT_AFTER).limit(REPEAT_AMONG).subquery()
    is_earlier = tasks.c.task_id.in_(sa.select(earlier.c.task_id))
    return connection.scalars(sa.select(tasks.c.task_id).where(is_earlier, ~repeated)).all()
