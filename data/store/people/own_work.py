"""Tasks that raters put aside, to answer them later.

A task that is put aside keeps its place for its rater for as long as any lease lasts, counted from
then, and nobody renews it: afterwards it goes to others as every task does, so that neither the end
of a day nor of a server loses it. Its rater is given it again when no other task is left for them,
or when they ask for it, as long as they hold it still or it has a place left.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from data.feedback import Claim, LeaseConfig, NotFound, Task
from data.kinds.registry import TaskKind
from data.store.conditions import IS_WITHHELD, RATER, is_of_kind
from data.store.database import Database
from data.store.leases import find_lease, hand_out, has_place, renew_lease
from data.store.plan.comparing import present_wording, spent_axes, wording_texts
from data.store.queries import Row, load_rater, load_task, lock_task
from data.store.tables import leases, tasks


@dataclass(frozen=True)
class AsideTask:
    """A task that its rater has put aside and can answer still."""

    task: Task
    shown_order: tuple[int, ...]
    """The place on the screen, from 0, of each image of `task.image_ids`."""
    aside_at: datetime
    wording: str | None
    """The words of a comparison's axis, in Markdown, as they are shown now."""


class OwnWork:
    """Tasks that raters have put aside; `FeedbackStore.own_work` has them."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], lease: LeaseConfig
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease = lease

    def put_aside(self, rater_id: str, task_id: str) -> None:
        """Put a task aside that the rater was given; the same again changes nothing.

        Raises:
            NotFound: no such task, or the rater was never given it or has answered it.
        """
        with self._database.write() as connection:
            now = self._clock()
            task = lock_task(connection, task_id)
            lease = find_lease(connection, task_id, rater_id)
            if lease is None or lease.expires_at is None:
                raise NotFound(
                    f"task {task_id}: not held by this rater; an answer is changed in the history"
                )
            if lease.aside_at is not None:
                return
            mine = sa.and_(leases.c.task_id == task_id, leases.c.rater_id == rater_id)
            connection.execute(sa.update(leases).where(mine).values(aside_at=now))
            source = load_rater(connection, rater_id).source
            if lease.expires_at > now or has_place(connection, task_id, source, now):
                renew_lease(connection, task, rater_id, now, config=self._lease)

    def take_back(self, rater_id: str, task_id: str) -> Claim | None:
        """Give the rater a task again that they had put aside; None when others have its places.

        Raises:
            NotFound: no such rater.
        """
        with self._database.write() as connection:
            now = self._clock()
            rater = load_rater(connection, rater_id)
            rows = [row for row in _rows(connection, rater_id) if row.task_id == task_id]
            return _take_first(connection, rater, rows, now, config=self._lease, more=True)

    def aside(self, rater_id: str) -> list[AsideTask]:
        """Return the tasks that the rater has put aside and can answer still, oldest first."""
        with self._database.read() as connection:
            now = self._clock()
            rater = load_rater(connection, rater_id)
            spent = spent_axes(connection, rater_id, now)
            found = []
            for row in _rows(connection, rater_id):
                if _is_open(connection, rater, row, now, spent):
                    task = load_task(connection, row.task_id)
                    wording = present_wording(connection, task)
                    words = wording_texts(connection, [wording]).get(wording)
                    found.append(AsideTask(task, tuple(row.shown_order), row.aside_at, words))
            return found


@cache
def _aside_rows(kind: TaskKind | None) -> sa.Select[Any]:
    return (
        sa.select(leases, tasks.c.axis)
        .join(tasks, tasks.c.task_id == leases.c.task_id)
        .where(leases.c.rater_id == RATER, leases.c.aside_at.is_not(None))
        .where(is_of_kind(kind), ~IS_WITHHELD)
        .order_by(leases.c.aside_at, leases.c.task_id)
    )


_ASIDE_IDS = sa.select(leases.c.task_id).where(
    leases.c.rater_id == RATER, leases.c.aside_at.is_not(None)
)


def tasks_aside(connection: sa.Connection, rater_id: str) -> Sequence[str]:
    """Return the ids of the tasks that the rater has put aside."""
    return connection.scalars(_ASIDE_IDS, {"of_rater": rater_id}).all()


def take_next_aside(
    connection: sa.Connection,
    rater: Row,
    kind: TaskKind | None,
    now: datetime,
    *,
    config: LeaseConfig,
    more: bool,
) -> Claim | None:
    """Lease the task again that the rater put aside first.

    Without `more`, because the rater has given their share, only those count that are held still.
    """
    rows = _rows(connection, rater.rater_id, kind)
    return _take_first(connection, rater, rows, now, config=config, more=more)


def _rows(connection: sa.Connection, rater_id: str, kind: TaskKind | None = None) -> Sequence[Row]:
    return connection.execute(_aside_rows(kind), {"of_rater": rater_id}).all()


def _take_first(
    connection: sa.Connection,
    rater: Row,
    rows: Sequence[Row],
    now: datetime,
    *,
    config: LeaseConfig,
    more: bool,
) -> Claim | None:
    spent = spent_axes(connection, rater.rater_id, now) if rows else []
    for row in rows:
        task = lock_task(connection, row.task_id)
        if row.expires_at > now or (more and _is_open(connection, rater, row, now, spent)):
            shown = {"shown_order": list(row.shown_order), "aside_at": row.aside_at}
            return hand_out(connection, task, rater.rater_id, now, config=config, **shown)
    return None


def _is_open(
    connection: sa.Connection, rater: Row, row: Row, now: datetime, spent: Collection[str]
) -> bool:
    """Whether the rater holds the task of the lease `row` still, or can be given it again."""
    if row.expires_at > now:
        return True
    return row.axis not in spent and has_place(connection, row.task_id, rater.source, now)
