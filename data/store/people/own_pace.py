"""Pace of one rater: labels of a day, labels per hour, and time at work without a break."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa

from data.store.conditions import RATER
from data.store.tables import labels

BREAK = timedelta(minutes=5)
"""Time without an answer, less that in which the rater was active, that is a break."""

LOOK_BACK = timedelta(hours=12)
"""The pace and the time at work are those of this last span of time."""

ENOUGH_FOR_PACE = 20
"""Once it has so many labels, the pace looks back over no further break."""

FEWEST_FOR_PACE = 5
"""Fewest labels from which a pace is computed."""

MOST_ANSWERS = 10_000
"""Latest answers that are looked at: a key held down must not make the page slow."""


@dataclass(frozen=True)
class OwnPace:
    """Pace of one rater."""

    labels: int
    """Tasks with a label of the rater that were first answered since the moment asked for:
    corrections add none, and what was taken back does not count."""
    per_hour: float | None
    """Labels per hour of work over the last stretch of it, breaks omitted; None when too few
    answers tell."""
    working_s: float
    """Seconds since the rater's last break; 0 during one."""


_FIRST = labels.alias("first")
_LIVE = labels.alias("live")
_COUNTS = sa.and_(
    _FIRST.c.revision == 1,
    sa.exists().where(
        _LIVE.c.task_id == _FIRST.c.task_id,
        _LIVE.c.rater_id == _FIRST.c.rater_id,
        # "is not false" keeps SQLite from looking through all labels of the rater for each answer
        _LIVE.c.is_live.is_not(sa.false()),
    ),
)
_SINCE = (_FIRST.c.rater_id == RATER, _FIRST.c.submitted_at >= sa.bindparam("since"))
_COUNT = sa.select(sa.func.count()).select_from(_FIRST).where(*_SINCE, _COUNTS)
_ANSWERS = (
    sa.select(_FIRST.c.submitted_at, _FIRST.c.active_ms, _COUNTS.label("counts"))
    .where(*_SINCE)
    .order_by(_FIRST.c.submitted_at.desc(), _FIRST.c.sequence.desc())
    .limit(MOST_ANSWERS)
)


def count_pace(connection: sa.Connection, rater_id: str, since: datetime, now: datetime) -> OwnPace:
    """Return the rater's labels since this moment, and the pace up to now.

    An answer takes the time since the one before it, or its own active time where that is longer
    (answers that waited for a connection arrive together) or where a break came before. Answers
    that were corrected or taken back take their time as well.
    """
    # a moment of years ago would count through all labels
    of_day = {"of_rater": rater_id, "since": max(since, now - 4 * LOOK_BACK)}
    n_labels = connection.scalar(_COUNT, of_day) or 0
    query = {"of_rater": rater_id, "since": now - LOOK_BACK}
    stretches = _stretches(connection.execute(_ANSWERS, query).all())
    is_at_work = bool(stretches) and now - stretches[0].ended <= BREAK
    working = now - stretches[0].began if is_at_work else timedelta(0)
    return OwnPace(n_labels, _per_hour(stretches), working.total_seconds())


@dataclass
class _Stretch:
    """Answers without a break between them."""

    began: datetime
    ended: datetime
    work: timedelta = timedelta(0)
    labels: int = 0


def _stretches(answers: Sequence[sa.Row[Any]]) -> list[_Stretch]:
    """Divide answers, the newest first, at the breaks; the newest stretch is the first."""
    found: list[_Stretch] = []
    after_break = True
    for answer, earlier in zip_longest(answers, answers[1:]):
        if after_break:
            found.append(_Stretch(answer.submitted_at, answer.submitted_at))
        active = timedelta(milliseconds=answer.active_ms or 0)
        passed = None if earlier is None else answer.submitted_at - earlier.submitted_at
        after_break = passed is None or passed - active > BREAK
        took = active if passed is None or after_break else max(active, passed)
        stretch = found[-1]
        stretch.began = answer.submitted_at - active
        stretch.work += took
        stretch.labels += bool(answer.counts)
    return found


def _per_hour(stretches: Sequence[_Stretch]) -> float | None:
    counted, work = 0, timedelta(0)
    for stretch in stretches:
        counted += stretch.labels
        work += stretch.work
        if counted >= ENOUGH_FOR_PACE:
            break
    return counted / (work / timedelta(hours=1)) if counted >= FEWEST_FOR_PACE and work else None
