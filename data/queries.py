"""The SQL behind the feedback store; each function works within the caller's transaction.

What every claim and every answer needs is built once, with its values as parameters: building a statement takes SQLAlchemy five times as
long as running it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa

from data.feedback import NotFound, Source, Task, TaskKind
from data.tables import labels, leases, prompts, raters, reports, task_images, tasks

Row = sa.Row[Any]

RECENT_LABELS = 101
"""The median time on task, and so the length of a lease, is taken over this many labels, as is the pace."""

LOOK_BACK = 1000
"""Labels among which those are looked for: of a kind that nobody labels now, or without times, there may be none for long."""

PACE_WITHIN = timedelta(minutes=10)
"""How far back the campaign's pace looks."""

FEWEST_FOR_PACE = 5
"""Labels; fewer tell no pace."""

LARGE_CAMPAIGN = 500
"""Tasks; the progress of larger campaigns is up to a second old."""

REPEAT_AFTER = 10
"""A task is asked again at the earliest when the rater has given so many other answers since."""

REPEAT_AMONG = 100
"""A repeat is drawn among so many of the rater's earlier answers."""

NO_CHECK = sa.and_(tasks.c.gold_source.is_(None), tasks.c.repeat_of.is_(None))
"""The condition that a task is neither hidden gold nor a repeat."""

OUT_OF_CIRCULATION = reports.c.state.in_(("open", "removed"))
"""The condition that a report keeps its image from raters."""

WITHHELD_IMAGES = sa.select(reports.c.image_id).where(OUT_OF_CIRCULATION)
"""The images that are kept from raters, some more than once."""

WITHHELD_TASKS = sa.select(task_images.c.task_id).where(task_images.c.image_id.in_(WITHHELD_IMAGES))
"""The tasks with an image that is kept from raters, some more than once."""

WITHHELD = sa.exists().where(
    task_images.c.task_id == tasks.c.task_id,
    reports.c.image_id == task_images.c.image_id,
    OUT_OF_CIRCULATION,
)
"""The condition that a task is one of these: quicker to ask of a few tasks, as looking for them is of all."""


_TASK: sa.BindParameter[str] = sa.bindparam("of_task")
_RATER: sa.BindParameter[str] = sa.bindparam("of_rater")
_NOW: sa.BindParameter[datetime] = sa.bindparam("now")
_NO_OTHERS: sa.BindParameter[str] = sa.bindparam("excluding", expanding=True)
_LEASE = sa.and_(leases.c.task_id == _TASK, leases.c.rater_id == _RATER)
_SOURCE = sa.select(raters.c.source).where(raters.c.rater_id == _RATER).scalar_subquery()

_ASKED = (
    sa.select(tasks.c.kind, prompts.c.prompt)
    .join(prompts, prompts.c.prompt_id == tasks.c.prompt_id)
    .where(tasks.c.task_id == _TASK)
)
_ASKED_LOCKED = _ASKED.with_for_update(of=tasks)
_IMAGES = (
    sa.select(task_images.c.image_id)
    .where(task_images.c.task_id == _TASK)
    .order_by(task_images.c.position)
)
_ADD_LIVE = (
    sa.update(tasks)
    .where(tasks.c.task_id == _TASK)
    .values(
        n_live=tasks.c.n_live
        + sa.bindparam("change") * sa.case((_SOURCE == "simulated", 0), else_=1),
        n_simulated=tasks.c.n_simulated
        + sa.bindparam("change") * sa.case((_SOURCE == "human", 0), else_=1),
    )
)
_FIND_LEASE = sa.select(leases).where(_LEASE)
_FORGET_LEASE = sa.delete(leases).where(_LEASE)
_NEW_LEASE = sa.insert(leases)
_END_LEASE_AT = sa.update(leases).where(_LEASE).values(expires_at=sa.bindparam("end"))
_RETIRE = (
    sa.update(labels)
    .where(labels.c.task_id == _TASK, labels.c.rater_id == _RATER, labels.c.is_live)
    .values(is_live=sa.false())
)
_RECEIVED = sa.select(labels).where(labels.c.submission_id == sa.bindparam("submission"))
_LAST_REVISION = sa.select(sa.func.max(labels.c.revision)).where(
    labels.c.task_id == _TASK, labels.c.rater_id == _RATER
)
_NEW_LABEL = sa.insert(labels)
_LATEST_LIVE = (
    sa.select(labels)
    .where(labels.c.rater_id == _RATER, labels.c.is_live)
    .order_by(labels.c.sequence.desc())
    .limit(1)
)
_COUNT_MINE = sa.select(sa.func.count()).where(labels.c.rater_id == _RATER, labels.c.is_live)


def insert_rows(
    connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, object]]
) -> None:
    """Inserts rows, if there are any."""
    if rows:
        connection.execute(sa.insert(table), rows)


@cache
def _with_key(table: sa.Table) -> sa.Select[Any]:
    (column,) = table.primary_key.columns
    return sa.select(table).where(column == sa.bindparam("key"))


def find_row(connection: sa.Connection, table: sa.Table, key: str) -> Row | None:
    """The row of a table with this primary key."""
    return connection.execute(_with_key(table), {"key": key}).one_or_none()


def load_task(
    connection: sa.Connection, task_id: str, *, asked: sa.Select[Any, Any] = _ASKED
) -> Task:
    """The task as raters see it; raises NotFound."""
    row = connection.execute(asked, {"of_task": task_id}).one_or_none()
    if row is None:
        raise NotFound(f"task {task_id}: not known; claim a task first")
    return Task(
        task_id, row.kind, row.prompt, tuple(connection.scalars(_IMAGES, {"of_task": task_id}))
    )


def lock_task(connection: sa.Connection, task_id: str) -> Task:
    """The task, which no other transaction can answer or give away until this one ends; raises NotFound."""
    # SQLite's write transaction is alone anyway; PostgreSQL serialises what touches one task here.
    return load_task(connection, task_id, asked=_ASKED_LOCKED)


def _of_kind(kind: TaskKind | None) -> sa.ColumnElement[bool]:
    return sa.true() if kind is None else tasks.c.kind == kind


def _given(source: Source) -> sa.Column[int]:
    """Live labels in the places of such raters: people and simulated raters do not take each other's, imported labels take both's."""
    return tasks.c.n_simulated if source == "simulated" else tasks.c.n_live


def _held_places(source: Source) -> sa.ColumnElement[int]:
    holds = (
        raters.c.source == "simulated" if source == "simulated" else raters.c.source != "simulated"
    )
    holders = (
        sa.select(sa.func.count())
        .select_from(leases)
        .join(raters, raters.c.rater_id == leases.c.rater_id)
    )
    return holders.where(
        leases.c.task_id == tasks.c.task_id, leases.c.expires_at > _NOW, holds
    ).scalar_subquery()


@cache
def _places(source: Source) -> sa.Select[Any]:
    return sa.select(tasks.c.overlap - _given(source) - _held_places(source)).where(
        tasks.c.task_id == _TASK, ~WITHHELD
    )


def has_place(connection: sa.Connection, task_id: str, source: Source, now: datetime) -> bool:
    """Whether the task wants more labels of such raters than they have live labels and live leases of it, and is not withheld."""
    return bool((connection.scalar(_places(source), {"of_task": task_id, "now": now}) or 0) > 0)


def find_lease(connection: sa.Connection, task_id: str, rater_id: str) -> Row | None:
    """The lease of the rater on the task, live or not."""
    return connection.execute(_FIND_LEASE, {"of_task": task_id, "of_rater": rater_id}).one_or_none()


def give_lease(connection: sa.Connection, task_id: str, rater_id: str, **values: object) -> None:
    """Makes a lease in place of the earlier one."""
    connection.execute(_FORGET_LEASE, {"of_task": task_id, "of_rater": rater_id})
    connection.execute(_NEW_LEASE, {"task_id": task_id, "rater_id": rater_id, **values})


def end_lease(connection: sa.Connection, task_id: str, rater_id: str, at: datetime | None) -> None:
    """Sets when the rater's hold on the task ends; None ends it now, because it was answered."""
    connection.execute(_END_LEASE_AT, {"of_task": task_id, "of_rater": rater_id, "end": at})


def is_over(lease: Row, now: datetime) -> bool:
    """Whether the lease has run out or its task was answered."""
    return lease.expires_at is None or lease.expires_at <= now


def find_label(connection: sa.Connection, submission_id: str) -> Row | None:
    """The label that this submission made."""
    return connection.execute(_RECEIVED, {"submission": submission_id}).one_or_none()


def latest_live(connection: sa.Connection, rater_id: str) -> Row | None:
    """The rater's last live label."""
    return connection.execute(_LATEST_LIVE, {"of_rater": rater_id}).one_or_none()


def next_revision(connection: sa.Connection, task_id: str, rater_id: str) -> int:
    """The number of the rater's next revision of the task, from 1."""
    return (connection.scalar(_LAST_REVISION, {"of_task": task_id, "of_rater": rater_id}) or 0) + 1


def insert_label(connection: sa.Connection, row: dict[str, object]) -> None:
    """Adds a revision."""
    connection.execute(_NEW_LABEL, row)


def retire_live(connection: sa.Connection, task_id: str, rater_id: str) -> bool:
    """Makes the rater's live label of the task, if there is one, an earlier revision; returns whether there was one."""
    return connection.execute(_RETIRE, {"of_task": task_id, "of_rater": rater_id}).rowcount > 0


def add_to_live_count(connection: sa.Connection, task_id: str, rater_id: str, change: int) -> None:
    """Keeps the task's numbers of live labels in step with a change of this rater's."""
    connection.execute(_ADD_LIVE, {"of_task": task_id, "of_rater": rater_id, "change": change})


def count_again(connection: sa.Connection, task_ids: Sequence[str]) -> None:
    """Sets the tasks' numbers of live labels after changes of many raters."""
    live = (
        sa.select(sa.func.count())
        .select_from(labels)
        .join(raters, raters.c.rater_id == labels.c.rater_id)
    )
    live = live.where(labels.c.task_id == tasks.c.task_id, labels.c.is_live)
    counts = {
        other: live.where(raters.c.source != other).scalar_subquery()
        for other in ("simulated", "human")
    }
    connection.execute(
        sa.update(tasks)
        .where(tasks.c.task_id.in_(task_ids))
        .values(n_live=counts["simulated"], n_simulated=counts["human"])
    )


def count_live(connection: sa.Connection, rater_id: str) -> int:
    """The rater's live labels."""
    return connection.scalar(_COUNT_MINE, {"of_rater": rater_id}) or 0


@cache
def _held(kind: TaskKind | None) -> sa.Select[Any]:
    return (
        sa.select(leases)
        .join(tasks, tasks.c.task_id == leases.c.task_id)
        .where(
            leases.c.rater_id == _RATER,
            leases.c.expires_at > _NOW,
            leases.c.task_id.not_in(_NO_OTHERS),
            _of_kind(kind),
            ~WITHHELD,
        )
        .order_by(leases.c.shown_at.desc(), leases.c.task_id)
        .limit(1)
    )


def held_lease(
    connection: sa.Connection,
    rater_id: str,
    kind: TaskKind | None,
    now: datetime,
    excluding: Collection[str] = (),
) -> Row | None:
    """The rater's live lease that was given last, of other tasks than `excluding`: after an undo that is the task taken back."""
    return connection.execute(
        _held(kind), {"of_rater": rater_id, "now": now, "excluding": list(excluding)}
    ).one_or_none()


@cache
def _free(
    source: Source, kind: TaskKind | None, *, gold: bool, skip_locked: bool
) -> sa.Select[Any]:
    given = _given(source)
    # "is not false" keeps SQLite from looking through all labels of the rater for each task: it takes the index of task and rater
    mine = sa.exists().where(
        labels.c.task_id == tasks.c.task_id,
        labels.c.rater_id == _RATER,
        labels.c.is_live.is_not(sa.false()),
    )
    return (
        sa.select(tasks.c.task_id)
        # the first condition is the queue index's own
        .where(
            given < tasks.c.overlap,
            given + _held_places(source) < tasks.c.overlap,
            ~mine,
            _of_kind(kind),
        )
        .where(
            tasks.c.gold_source.is_not(None) if gold else NO_CHECK,
            tasks.c.task_id.not_in(_NO_OTHERS),
        )
        .where(~WITHHELD)
        .order_by(*((given,) if gold else (tasks.c.priority.desc(),)), tasks.c.order_key)
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
    """The first task of the queue with a place left that the rater has not answered, locked; of hidden gold, the least answered one."""
    values = {"of_rater": rater.rater_id, "now": now, "excluding": list(excluding)}
    if connection.dialect.name == "sqlite":  # its write transaction is alone
        first: str | None = connection.scalar(
            _free(rater.source, kind, gold=gold, skip_locked=False), values
        )
        return first
    # On PostgreSQL, tasks that another claim is deciding on are passed over, and waited for only when there are no others.
    for skip_locked in (True, False):
        while (
            task_id := connection.scalar(
                _free(rater.source, kind, gold=gold, skip_locked=skip_locked), values
            )
        ) is not None:
            # The query may have seen the leases of before another claim's commit: look again, now under the lock.
            if has_place(connection, task_id, rater.source, now):
                return str(task_id)
    return None


def repeatable_tasks(
    connection: sa.Connection, rater_id: str, kind: TaskKind | None
) -> Sequence[str]:
    """Tasks that the rater answered a while ago and was not asked again, the latest first; no checks."""
    again = tasks.alias()
    asked = sa.exists().where(
        again.c.repeat_of == tasks.c.task_id,
        again.c.task_id == leases.c.task_id,
        leases.c.rater_id == rater_id,
    )
    query = (
        sa.select(labels.c.task_id)
        .join(tasks, tasks.c.task_id == labels.c.task_id)
        .where(labels.c.rater_id == rater_id, labels.c.is_live, NO_CHECK, _of_kind(kind), ~WITHHELD)
        .order_by(labels.c.sequence.desc())
    )
    earlier = query.offset(REPEAT_AFTER).limit(REPEAT_AMONG).subquery()
    return connection.scalars(
        sa.select(tasks.c.task_id).where(tasks.c.task_id.in_(sa.select(earlier.c.task_id)), ~asked)
    ).all()


@dataclass(frozen=True)
class Totals:
    """How far the campaign is among raters of one source; without checks."""

    counted_at: datetime
    n_tasks: int
    done: int
    """Labels, at most as many per task as are wanted."""
    total: int
    """Labels wanted."""
    pace: float | None
    """Labels per second, of all raters together, over the latest labels of the last minutes; None when these are too few to tell."""

    def holds(self, now: datetime) -> bool:
        """Whether it need not be counted again: only large campaigns, where that takes long, make do with older figures."""
        # figures from the future were counted before the clock was set back
        return self.n_tasks > LARGE_CAMPAIGN and timedelta(0) <= now - self.counted_at < timedelta(
            seconds=1
        )


_LATEST_LABELS = (
    sa.select(labels.c.submitted_at, labels.c.rater_id)
    .order_by(labels.c.sequence.desc())
    .limit(RECENT_LABELS)
    .subquery()
)
_LOOKED_AT = (
    labels.c.sequence > sa.select(sa.func.max(labels.c.sequence) - LOOK_BACK).scalar_subquery()
)
_TIMES = (
    sa.select(labels.c.time_on_task_ms.label("ms"))
    .where(
        _LOOKED_AT, labels.c.kind == sa.bindparam("of_kind"), labels.c.time_on_task_ms.is_not(None)
    )
    .order_by(labels.c.sequence.desc())
    .limit(RECENT_LABELS)
    .subquery()
)
_RANKED_TIMES = sa.select(
    _TIMES.c.ms,
    sa.func.row_number().over(order_by=_TIMES.c.ms).label("place"),
    sa.func.count().over().label("n"),
).subquery()
_MEDIAN = sa.select(sa.func.avg(_RANKED_TIMES.c.ms)).where(
    (2 * _RANKED_TIMES.c.place - _RANKED_TIMES.c.n).between(0, 2)
)


def finished_labels(source: Source) -> sa.ColumnElement[int]:
    """A task's live labels in the places of such raters, at most as many as are wanted."""
    given = _given(source)
    return sa.case((given < tasks.c.overlap, given), else_=tasks.c.overlap)


def wanted_labels(source: Source) -> sa.ColumnElement[int]:
    """Labels of a task that are wanted of such raters: of a withheld task no more than there are."""
    return sa.case(
        (tasks.c.task_id.in_(WITHHELD_TASKS), finished_labels(source)), else_=tasks.c.overlap
    )


@cache
def _totals(source: Source) -> sa.Select[int, Any, Any]:
    return sa.select(
        sa.func.count(), sa.func.sum(finished_labels(source)), sa.func.sum(wanted_labels(source))
    ).where(NO_CHECK)


def count_totals(connection: sa.Connection, source: Source, now: datetime) -> Totals:
    """Counts all tasks."""
    n_tasks, done, total = connection.execute(_totals(source)).one()
    return Totals(
        now, n_tasks, int(done or 0), int(total or 0), _labels_per_second(connection, source, now)
    )


@cache
def _pace(source: Source) -> sa.Select[int, Any]:
    return (
        sa.select(sa.func.count(), sa.func.min(_LATEST_LABELS.c.submitted_at))
        .join(raters, raters.c.rater_id == _LATEST_LABELS.c.rater_id)
        .where(_LATEST_LABELS.c.submitted_at > sa.bindparam("since"), raters.c.source == source)
    )


def _labels_per_second(connection: sa.Connection, source: Source, now: datetime) -> float | None:
    count, first = connection.execute(_pace(source), {"since": now - PACE_WITHIN}).one()
    elapsed_s = (now - first).total_seconds() if count else 0.0
    return count / elapsed_s if count >= FEWEST_FOR_PACE and elapsed_s > 0 else None


def median_seconds(connection: sa.Connection, kind: TaskKind) -> float:
    """The median time on task over the latest labels of this kind; 0 before there are any."""
    return float(connection.scalar(_MEDIAN, {"of_kind": kind}) or 0) / 1000
