"""The SQL behind the feedback store; each function works within the caller's transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import sqlalchemy as sa

from data.feedback import NotFound, Task, TaskKind
from data.tables import labels, leases, prompts, task_images, tasks

Row = sa.Row[Any]

RECENT_LABELS = 101
"""The median time on task, and so the length of a lease, is taken over this many labels."""

PACE_WITHIN = timedelta(minutes=10)
"""How far back the campaign's pace looks."""

FEWEST_FOR_PACE = 5
"""Labels; fewer tell no pace."""

LARGE_CAMPAIGN = 2000
"""Tasks; the progress of larger campaigns is up to a second old."""

REPEAT_AFTER = 10
"""A task is asked again at the earliest when the rater has given so many other answers since."""

REPEAT_AMONG = 100
"""A repeat is drawn among so many of the rater's earlier answers."""

NO_CHECK = sa.and_(tasks.c.gold_source.is_(None), tasks.c.repeat_of.is_(None))
"""The condition that a task is neither hidden gold nor a repeat."""


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, object]]) -> None:
    """Inserts rows, if there are any."""
    if rows:
        connection.execute(sa.insert(table), rows)


def find_row(connection: sa.Connection, table: sa.Table, key: str) -> Row | None:
    """The row of a table with this primary key."""
    (column,) = table.primary_key.columns
    return connection.execute(sa.select(table).where(column == key)).one_or_none()


def load_task(connection: sa.Connection, task_id: str) -> Task:
    """The task as raters see it; raises NotFound."""
    query = sa.select(tasks.c.kind, prompts.c.prompt).join(prompts, prompts.c.prompt_id == tasks.c.prompt_id)
    row = connection.execute(query.where(tasks.c.task_id == task_id)).one_or_none()
    if row is None:
        raise NotFound(f"task {task_id}: not known; claim a task first")
    images = sa.select(task_images.c.image_id).where(task_images.c.task_id == task_id).order_by(task_images.c.position)
    return Task(task_id, row.kind, row.prompt, tuple(connection.scalars(images)))


def lock_task(connection: sa.Connection, task_id: str) -> Task:
    """The task, which no other transaction can answer or give away until this one ends; raises NotFound."""
    # SQLite's write transaction is alone anyway; PostgreSQL serialises what touches one task here.
    connection.execute(sa.select(tasks.c.task_id).where(tasks.c.task_id == task_id).with_for_update())
    return load_task(connection, task_id)


def _of_kind(kind: TaskKind | None) -> sa.ColumnElement[bool]:
    return sa.true() if kind is None else tasks.c.kind == kind


def lease_of(task_id: str, rater_id: str) -> sa.ColumnElement[bool]:
    """The condition that picks the lease of one rater on one task."""
    return sa.and_(leases.c.task_id == task_id, leases.c.rater_id == rater_id)


def _live_leases(now: datetime) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).where(leases.c.task_id == tasks.c.task_id, leases.c.expires_at > now).scalar_subquery()


def has_place(connection: sa.Connection, task_id: str, now: datetime) -> bool:
    """Whether the task wants more labels than it has live labels and live leases."""
    places = sa.select(tasks.c.overlap - tasks.c.n_live - _live_leases(now)).where(tasks.c.task_id == task_id)
    return bool((connection.scalar(places) or 0) > 0)


def is_over(lease: Row, now: datetime) -> bool:
    """Whether the lease has run out or its task was answered."""
    return lease.expires_at is None or lease.expires_at <= now


def release(connection: sa.Connection, task_id: str, rater_id: str) -> None:
    """Ends the rater's hold on the task."""
    connection.execute(sa.update(leases).where(lease_of(task_id, rater_id)).values(expires_at=None))


def retire_live(connection: sa.Connection, task_id: str, rater_id: str) -> bool:
    """Makes the rater's live label of the task, if there is one, an earlier revision; returns whether there was one."""
    mine = sa.and_(labels.c.task_id == task_id, labels.c.rater_id == rater_id, labels.c.is_live)
    return connection.execute(sa.update(labels).where(mine).values(is_live=False)).rowcount > 0


def add_to_live_count(connection: sa.Connection, task_id: str, change: int) -> None:
    """Keeps the task's number of live labels in step."""
    connection.execute(sa.update(tasks).where(tasks.c.task_id == task_id).values(n_live=tasks.c.n_live + change))


def held_lease(
    connection: sa.Connection, rater_id: str, kind: TaskKind | None, now: datetime, excluding: Collection[str] = ()
) -> Row | None:
    """The rater's live lease that was given last, of other tasks than `excluding`: after an undo that is the task taken back."""
    query = (
        sa.select(leases)
        .join(tasks, tasks.c.task_id == leases.c.task_id)
        .where(leases.c.rater_id == rater_id, leases.c.expires_at > now, leases.c.task_id.not_in(excluding), _of_kind(kind))
        .order_by(leases.c.shown_at.desc(), leases.c.task_id)
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def free_task(
    connection: sa.Connection, rater_id: str, kind: TaskKind | None, now: datetime, excluding: Collection[str] = (), *, gold: bool = False
) -> str | None:
    """The first task of the queue with a place left that the rater has not answered, locked; of hidden gold, the least answered one."""
    # "is not false" keeps SQLite from looking through all labels of the rater for each task: it takes the index of task and rater
    mine = sa.exists().where(labels.c.task_id == tasks.c.task_id, labels.c.rater_id == rater_id, labels.c.is_live.is_not(sa.false()))
    query = (
        sa.select(tasks.c.task_id)
        # the first condition is the queue index's own
        .where(tasks.c.n_live < tasks.c.overlap, tasks.c.n_live + _live_leases(now) < tasks.c.overlap, ~mine, _of_kind(kind))
        .where(tasks.c.gold_source.is_not(None) if gold else NO_CHECK, tasks.c.task_id.not_in(excluding))
        .order_by(*((tasks.c.n_live,) if gold else (tasks.c.priority.desc(),)), tasks.c.order_key)
        .limit(1)
    )
    # On PostgreSQL, tasks that another claim is deciding on are passed over, and waited for only when there are no others.
    for skip_locked in (True, False):
        while (task_id := connection.scalar(query.with_for_update(skip_locked=skip_locked, of=tasks))) is not None:
            # The query may have seen the leases of before another claim's commit: look again, now under the lock.
            if has_place(connection, task_id, now):
                return str(task_id)
    return None


def repeatable_tasks(connection: sa.Connection, rater_id: str, kind: TaskKind | None) -> Sequence[str]:
    """Tasks that the rater answered a while ago and was not asked again, the latest first; no checks."""
    again = tasks.alias()
    asked = sa.exists().where(again.c.repeat_of == tasks.c.task_id, again.c.task_id == leases.c.task_id, leases.c.rater_id == rater_id)
    query = (
        sa.select(labels.c.task_id)
        .join(tasks, tasks.c.task_id == labels.c.task_id)
        .where(labels.c.rater_id == rater_id, labels.c.is_live, NO_CHECK, _of_kind(kind))
        .order_by(labels.c.sequence.desc())
    )
    earlier = query.offset(REPEAT_AFTER).limit(REPEAT_AMONG).subquery()
    return connection.scalars(sa.select(tasks.c.task_id).where(tasks.c.task_id.in_(sa.select(earlier.c.task_id)), ~asked)).all()


@dataclass(frozen=True)
class Totals:
    """How far the campaign is; without checks."""

    counted_at: datetime
    n_tasks: int
    done: int
    """Labels, at most as many per task as are wanted."""
    total: int
    """Labels wanted."""

    def holds(self, now: datetime) -> bool:
        """Whether it need not be counted again: only large campaigns, where that takes long, make do with older figures."""
        return self.n_tasks > LARGE_CAMPAIGN and now - self.counted_at < timedelta(seconds=1)


def count_totals(connection: sa.Connection, now: datetime) -> Totals:
    """Counts all tasks."""
    finished = sa.case((tasks.c.n_live < tasks.c.overlap, tasks.c.n_live), else_=tasks.c.overlap)
    query = sa.select(sa.func.count(), sa.func.sum(finished), sa.func.sum(tasks.c.overlap)).where(NO_CHECK)
    n_tasks, done, total = connection.execute(query).one()
    return Totals(now, n_tasks, int(done or 0), int(total or 0))


def labels_per_second(connection: sa.Connection, now: datetime) -> float | None:
    """The pace of all raters together over the latest labels of the last minutes; None when these are too few to tell."""
    recent = (
        sa.select(labels.c.submitted_at)
        .where(labels.c.submitted_at > now - PACE_WITHIN)
        .order_by(labels.c.sequence.desc())
        .limit(RECENT_LABELS)
    )
    moments = connection.scalars(recent).all()
    elapsed_s = (now - moments[-1]).total_seconds() if moments else 0.0
    return len(moments) / elapsed_s if len(moments) >= FEWEST_FOR_PACE and elapsed_s > 0 else None


def median_seconds(connection: sa.Connection, kind: TaskKind) -> float:
    """The median time on task over the latest labels of this kind; 0 before there are any."""
    recent = (
        sa.select(labels.c.time_on_task_ms)
        .where(labels.c.kind == kind, labels.c.time_on_task_ms.is_not(None))
        .order_by(labels.c.sequence.desc())
        .limit(RECENT_LABELS)
    )
    times = connection.scalars(recent).all()
    return median(times) / 1000 if times else 0.0
