"""Tasks that raters put aside, to answer them later.

Putting a task aside starts a lease of the usual length, which is never renewed. When it ends, other
raters can get the task, so no task is lost. The rater gets the task again on request, or when no
other task is left, as long as the lease lasts or the task has a free place.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from data.feedback import Claim, NotFound
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


class OwnWork(StorePart):
    """Tasks that raters have put aside: `FeedbackStore.own_work`."""

    def put_aside(self, rater_id: str, task_id: str) -> None:
        """Put a task of the rater aside; a second call changes nothing.

        Raises:
            NotFound: the task does not exist, was never leased to the rater, or is answered.
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
                renew_lease(connection, task, rater_id, now)

    def take_back(self, rater_id: str, task_id: str) -> Claim | None:
        """Lease a task that the rater put aside again; None if it has no free place.

        Raises:
            NotFound: no such rater.
        """
        with self.write() as (connection, now):
            rater = load_rater(connection, rater_id)
            request = ClaimRequest(connection, rater, None, now)
            rows = [row for row in rows_aside(request) if row.task_id == task_id]
            return take_first_aside(request, rows)

    def aside(self, rater_id: str) -> list[Claim]:
        """Return the tasks that the rater put aside and can still answer, oldest first.

        They have the current wording of their axes.
        """
        with self.database.read() as connection:
            rater = load_rater(connection, rater_id)
            request = ClaimRequest(connection, rater, None, self.clock())
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


def take_first_aside(request: ClaimRequest, rows: Sequence[Row]) -> Claim | None:
    """Lease the first task put aside that the rater can still answer."""
    for row in rows:
        task = load_task(request.connection, row.task_id, lock=True)
        if _is_open(request, row):
            return hand_out(request, task, list(row.shown_order), row.aside_at)
    return None


def _is_open(request: ClaimRequest, row: Row) -> bool:
    """Whether the rater still holds the task of the lease `row`, or can lease it again."""
    source, now = request.rater.source, request.now
    return row.expires_at > now or has_place(request.connection, row.task_id, source, now)
