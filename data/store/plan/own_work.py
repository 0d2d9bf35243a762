"""Tasks that raters put aside, to answer them later.

A task that is put aside keeps its place for its rater for as long as any lease lasts, counted from
then, and nobody renews it: afterwards it goes to others as every task does, so that neither the end
of a day nor of a server loses it. Its rater is given it again when no other task is left for them,
or when they ask for it, as long as they hold it still or it has a place left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from data.feedback import Claim, LeaseConfig, NotFound
from data.kinds.registry import TaskKind
from data.store.database import StorePart
from data.store.leases import (
    ClaimRequest,
    find_lease,
    hand_out,
    has_place,
    present_wording,
    renew_lease,
    wording_text,
)
from data.store.queries import IS_WITHHELD, RATER, Row, is_of_kind, load_rater, load_task
from data.store.tables import leases, tasks


@dataclass(eq=False)
class OwnWork(StorePart):
    """Tasks that raters have put aside: `FeedbackStore.own_work`."""

    lease: LeaseConfig

    def put_aside(self, rater_id: str, task_id: str) -> None:
        """Put a task aside that the rater was given; the same again changes nothing.

        Raises:
            NotFound: no such task, or the rater was never given it or has answered it.
        """
        with self.write() as (connection, now):
            task = load_task(connection, task_id, lock=True)
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
                renew_lease(connection, task, rater_id, now, self.lease)

    def take_back(self, rater_id: str, task_id: str) -> Claim | None:
        """Give the rater a task again that they had put aside; None when others have its places.

        Raises:
            NotFound: no such rater.
        """
        with self.write() as (connection, now):
            rater = load_rater(connection, rater_id)
            request = ClaimRequest(connection, rater, None, now, self.lease)
            rows = [row for row in rows_aside(request) if row.task_id == task_id]
            return take_first_aside(request, rows, more=True)

    def aside(self, rater_id: str) -> list[Claim]:
        """Return the tasks that the rater has put aside and can answer still, oldest first.

        They have the present words of their axes.
        """
        with self.database.read() as connection:
            rater = load_rater(connection, rater_id)
            request = ClaimRequest(connection, rater, None, self.clock(), self.lease)
            found = []
            for row in rows_aside(request):
                if _is_open(request, row):
                    task = load_task(connection, row.task_id)
                    words = wording_text(connection, present_wording(connection, task))
                    shown = (row.expires_at, tuple(row.shown_order), row.shown_at)
                    found.append(Claim(task, *shown, words, row.aside_at))
            return found


@cache
def _aside_rows(kind: TaskKind | None) -> sa.Select[Any]:
    return (
        sa.select(leases)
        .join(tasks, tasks.c.task_id == leases.c.task_id)
        .where(leases.c.rater_id == RATER, leases.c.aside_at.is_not(None))
        .where(is_of_kind(kind), ~IS_WITHHELD)
        .order_by(leases.c.aside_at, leases.c.task_id)
    )


def rows_aside(request: ClaimRequest) -> Sequence[Row]:
    """Return the leases of tasks that the rater put aside, oldest first."""
    values = {"of_rater": request.rater.rater_id}
    return request.connection.execute(_aside_rows(request.kind), values).all()


def take_first_aside(request: ClaimRequest, rows: Sequence[Row], *, more: bool) -> Claim | None:
    """Lease the first of these tasks again that the rater can answer still.

    Without `more`, because the rater has given their share, only tasks count that are held still.
    """
    connection, now = request.connection, request.now
    for row in rows:
        task = load_task(connection, row.task_id, lock=True)
        if row.expires_at > now or (more and _is_open(request, row)):
            return hand_out(request, task, list(row.shown_order), row.aside_at)
    return None


def _is_open(request: ClaimRequest, row: Row) -> bool:
    """Whether the rater holds the task of the lease `row` still, or can be given it again."""
    source, now = request.rater.source, request.now
    return row.expires_at > now or has_place(request.connection, row.task_id, source, now)
