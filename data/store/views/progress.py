"""Statistics of the campaign's progress: labels done and wanted, work left, time on task."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from threading import Lock
from typing import Any

import sqlalchemy as sa

from data.feedback import Source
from data.kinds.registry import TaskKind
from data.store.leases import IN_REACH, LOOK_BACK, RECENT_LABELS
from data.store.queries import NO_CHECK, WITHHELD_TASKS, live_labels
from data.store.tables import labels, raters, tasks

AT_WORK_WITHIN = timedelta(minutes=10)
"""Raters who gave a label in this last span of time are at work."""

FEWEST_FOR_FORECAST = 20
"""Fewest latest labels of each kind still wanted that tell how much work is left."""

FEWEST_HELD, MOST_HELD = 2, 10
"""Tasks that a rater holds when few are left, so that the next one is there, and when many are, so
that as many can be answered without a connection."""

LARGE_CAMPAIGN = 500
"""Tasks; the progress of a larger campaign is somewhat old."""

FRESH_FOR = timedelta(seconds=1)
"""A large campaign's progress is counted again after this time, or `FRESH_PER_TASK`."""

FRESH_PER_TASK = timedelta(microseconds=20)
"""Time for each task after which the progress is counted again: 20 seconds of a million tasks. It
is many times what counting takes, which looks at all of them."""


@dataclass(frozen=True)
class Totals:
    """Progress of the campaign among raters of one source; without checks."""

    counted_at: datetime
    n_tasks: int
    done: int
    """Labels, at most as many per task as are wanted."""
    total: int
    """Labels wanted."""
    seconds_left: float | None
    """Active time that the rest takes raters, all together, at the mean of the latest labels of
    each kind: breaks, and raters who come and go, change nothing. None when too few labels tell."""
    n_raters: int
    """Raters at work."""

    @property
    def is_large(self) -> bool:
        """Whether the campaign is so large that older figures will do."""
        return self.n_tasks > LARGE_CAMPAIGN

    def is_fresh(self, now: datetime) -> bool:
        """Whether these totals can be used again."""
        oldest = max(FRESH_FOR, self.n_tasks * FRESH_PER_TASK)
        # Figures from the future were counted before the clock was set back.
        return self.is_large and timedelta(0) <= now - self.counted_at < oldest


class LatestTotals:
    """The totals that were counted last, by source.

    Those of a large campaign are used again for a while. One thread at a time then counts again;
    the others take what is there.
    """

    def __init__(self) -> None:
        self._totals: dict[Source, Totals] = {}
        self._counting = Lock()

    def forget(self) -> None:
        """Have them counted again next time."""
        self._totals = {}

    def get(
        self, connection: sa.Connection, source: Source, now: datetime, *, newest: bool = False
    ) -> Totals:
        """Return the totals, counted now with `newest`."""
        known = self._totals.get(source)
        if newest or (known is not None and not known.is_large):
            return self._count(connection, source, now)
        if known is not None and (known.is_fresh(now) or self._counting.locked()):
            return known
        with self._counting:
            counted = self._totals.get(source)  # perhaps by the thread that was waited for
            if counted is not None and counted.is_fresh(now):
                return counted
            return self._count(connection, source, now)

    def _count(self, connection: sa.Connection, source: Source, now: datetime) -> Totals:
        totals = self._totals[source] = count_totals(connection, source, now)
        return totals


def fair_hold(totals: Totals) -> int:
    """Return how many tasks one rater should hold now, from `FEWEST_HELD` to `MOST_HELD`.

    The raters at work hold at most half of what is left, in equal parts, so that near the end
    nobody has to wait for tasks that others were given: each has one at most that is not begun.
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
    """Return a task's live labels in the places of raters of this source, at most its overlap."""
    n_live = live_labels(source)
    return sa.case((n_live < tasks.c.overlap, n_live), else_=tasks.c.overlap)


def wanted_labels(source: Source) -> sa.ColumnElement[int]:
    """Return the labels of a task that are wanted from raters of this source.

    Of a withheld task no more are wanted than there are.
    """
    is_withheld = tasks.c.task_id.in_(WITHHELD_TASKS)
    return sa.case((is_withheld, finished_labels(source)), else_=tasks.c.overlap)


@cache
def _totals(source: Source) -> sa.Select[Any, int, Any, Any]:
    done, wanted = sa.func.sum(finished_labels(source)), sa.func.sum(wanted_labels(source))
    counts = sa.select(tasks.c.kind, sa.func.count(), done, wanted)
    return counts.where(NO_CHECK).group_by(tasks.c.kind)


def count_totals(connection: sa.Connection, source: Source, now: datetime) -> Totals:
    """Count the labels of all tasks."""
    rows = connection.execute(_totals(source)).all()
    n_tasks = sum(count for _, count, _, _ in rows)
    left = {kind: int(wanted - done) for kind, _, done, wanted in rows if wanted > done}
    total = sum(int(wanted) for *_, wanted in rows)
    seconds_left = _seconds_left(connection, source, left)
    n_raters = connection.scalar(_at_work(source), {"since": now - AT_WORK_WITHIN}) or 0
    return Totals(now, n_tasks, total - sum(left.values()), total, seconds_left, n_raters)


@cache
def _at_work(source: Source) -> sa.Select[int]:
    return (
        sa.select(sa.func.count(_LATEST_LABELS.c.rater_id.distinct()))
        .join(raters, raters.c.rater_id == _LATEST_LABELS.c.rater_id)
        .where(_LATEST_LABELS.c.submitted_at > sa.bindparam("since"), raters.c.source == source)
    )


@cache
def _active_times(source: Source) -> sa.Select[Any, Any]:
    """Return the query of the mean active time of each kind that has enough labels."""
    # a limit, as SQLite would otherwise begin with the raters and read all of their labels
    latest = (
        sa.select(labels.c.kind, labels.c.active_ms, labels.c.rater_id)
        .where(IN_REACH, labels.c.is_live)
        .order_by(labels.c.sequence.desc())
        .limit(LOOK_BACK)
        .subquery()
    )
    return (
        sa.select(latest.c.kind, sa.func.avg(latest.c.active_ms))
        .join(raters, raters.c.rater_id == latest.c.rater_id)
        .where(raters.c.source == source)
        .group_by(latest.c.kind)
        .having(sa.func.count(latest.c.active_ms) >= FEWEST_FOR_FORECAST)
    )


def _seconds_left(
    connection: sa.Connection, source: Source, left: Mapping[TaskKind, int]
) -> float | None:
    means = {kind: float(mean) for kind, mean in connection.execute(_active_times(source))}
    if not left or not left.keys() <= means.keys():
        return None
    return sum(count * means[kind] for kind, count in left.items()) / 1000
