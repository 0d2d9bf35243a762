"""Statistics of the campaign's progress: labels done and wanted, raters at work."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from threading import Lock
from typing import Any

import sqlalchemy as sa

from data.feedback import Source
from data.store.leases import RECENT_LABELS
from data.store.queries import NO_CHECK, WITHHELD_TASKS, live_labels
from data.store.tables import labels, raters, tasks

AT_WORK_WITHIN = timedelta(minutes=10)
"""A rater counts as at work if their last label is at most this old."""

FEWEST_HELD, MOST_HELD = 2, 10
"""Number of tasks that a rater holds: when few are left (the next task is ready at once), and when
many are left (all of them can be answered without a connection)."""

LARGE_CAMPAIGN = 500
"""Number of tasks above which the progress comes from a cache."""

FRESH_FOR = timedelta(seconds=1)
"""Least time after which a large campaign's progress is counted again."""

FRESH_PER_TASK = timedelta(microseconds=20)
"""Time per task after which the progress is counted again: 20 seconds for a million tasks. Counting
reads all tasks, but takes far less than that."""


@dataclass(frozen=True)
class Totals:
    """Progress of the campaign by raters of one source, without checks."""

    counted_at: datetime
    n_tasks: int
    done: int
    """Labels, per task at most its overlap."""
    total: int
    """Labels wanted."""
    n_raters: int
    """Raters at work."""

    @property
    def is_large(self) -> bool:
        """Whether the campaign is so large that cached figures are used."""
        return self.n_tasks > LARGE_CAMPAIGN

    def is_fresh(self, now: datetime) -> bool:
        """Whether the cached totals are recent enough."""
        oldest = max(FRESH_FOR, self.n_tasks * FRESH_PER_TASK)
        # Figures from the future date from before the clock was set back.
        return self.is_large and timedelta(0) <= now - self.counted_at < oldest


class LatestTotals:
    """Cache of the latest totals, by source.

    Totals of a large campaign are reused for a while. Then one thread counts again; the others use
    the old totals.
    """

    def __init__(self) -> None:
        self._totals: dict[Source, Totals] = {}
        self._counting = Lock()

    def forget(self) -> None:
        """Clear the cache."""
        self._totals = {}

    def get(
        self, connection: sa.Connection, source: Source, now: datetime, *, newest: bool = False
    ) -> Totals:
        """Return the totals; `newest` bypasses the cache."""
        known = self._totals.get(source)
        if newest or known is None or not known.is_large:
            return self._count(connection, source, now)
        if known.is_fresh(now) or self._counting.locked():
            return known
        with self._counting:
            return self._count(connection, source, now)

    def _count(self, connection: sa.Connection, source: Source, now: datetime) -> Totals:
        totals = self._totals[source] = count_totals(connection, source, now)
        return totals


def fair_hold(totals: Totals) -> int:
    """Return how many tasks one rater should hold now, from `FEWEST_HELD` to `MOST_HELD`.

    The raters at work hold at most half of the remaining labels, in equal parts. So near the end
    nobody waits for tasks of others: each rater holds at most one task besides the current one.
    """
    left = totals.total - totals.done
    return min(max(left // (2 * max(totals.n_raters, 1)), FEWEST_HELD), MOST_HELD)


_LATEST_LABELS = (
    sa.select(labels.c.submitted_at, labels.c.rater_id)
    .order_by(labels.c.sequence.desc())
    .limit(RECENT_LABELS)
    .subquery()
)


def finished_labels(source: Source) -> sa.ColumnElement[int]:
    """Return a task's live labels by raters of this source, at most its overlap."""
    n_live = live_labels(source)
    return sa.case((n_live < tasks.c.overlap, n_live), else_=tasks.c.overlap)


def wanted_labels(source: Source) -> sa.ColumnElement[int]:
    """Return the number of labels of a task wanted from raters of this source.

    A withheld task wants no further labels.
    """
    is_withheld = tasks.c.task_id.in_(WITHHELD_TASKS)
    return sa.case((is_withheld, finished_labels(source)), else_=tasks.c.overlap)


@cache
def _totals(source: Source) -> sa.Select[int, Any, Any]:
    done, wanted = sa.func.sum(finished_labels(source)), sa.func.sum(wanted_labels(source))
    return sa.select(sa.func.count(), done, wanted).where(NO_CHECK)


def count_totals(connection: sa.Connection, source: Source, now: datetime) -> Totals:
    """Count the labels of all tasks."""
    n_tasks, done, wanted = connection.execute(_totals(source)).one()
    n_raters = connection.scalar(_at_work(source), {"since": now - AT_WORK_WITHIN}) or 0
    return Totals(now, n_tasks, int(done or 0), int(wanted or 0), n_raters)


@cache
def _at_work(source: Source) -> sa.Select[int]:
    return (
        sa.select(sa.func.count(_LATEST_LABELS.c.rater_id.distinct()))
        .join(raters, raters.c.rater_id == _LATEST_LABELS.c.rater_id)
        .where(_LATEST_LABELS.c.submitted_at > sa.bindparam("since"), raters.c.source == source)
    )
