"""Comparisons in the feedback store: their tasks, the words of their axes, and each rater's share.

The functions work in their caller's transaction.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa

from data.comparisons import Axis
from data.feedback import NewTask, Task
from data.store.conditions import NOW, RATER
from data.store.database import Database
from data.store.plan.planning import insert_tasks, task_id_of
from data.store.queries import find_row
from data.store.tables import leases, settings, tasks, wordings

MOST = "most_comparisons"
"""Setting: the most answers of one rater by axis, as JSON."""

_OF_RATER = (
    sa.select(tasks.c.axis, sa.func.count())
    .join(leases, leases.c.task_id == tasks.c.task_id)
    .where(
        leases.c.rater_id == RATER,
        tasks.c.axis.is_not(None),
        # answered, or held now
        sa.or_(leases.c.expires_at.is_(None), leases.c.expires_at > NOW),
    )
    .group_by(tasks.c.axis)
)


class Comparisons:
    """Comparisons of models; `FeedbackStore.comparisons` is one."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], *, order_seed: str
    ) -> None:
        self._database = database
        self._clock = clock
        self._order_seed = order_seed

    def add(self, new_tasks: Iterable[NewTask], *, most_share: float) -> int:
        """Add comparisons, all or none; return how many are new.

        Those that are there get the overlap, priority, subject, reference and steps of the new
        ones. Other tasks stay as they are. A rater is then given at most `most_share` of the
        answers that are wanted on each axis, and at least one.
        """
        wanted = {task_id_of(task): task for task in new_tasks}
        with self._database.write() as connection:
            for task_id, task in wanted.items():
                values = {
                    "overlap": task.overlap,
                    "priority": task.priority,
                    "subject": task.subject,
                    "reference": task.reference,
                    "steps": task.steps,
                }
                known = sa.update(tasks).where(tasks.c.task_id == task_id)
                connection.execute(known.values(values))
            added = insert_tasks(
                connection, wanted.values(), self._clock(), order_seed=self._order_seed
            )
            _limit_raters(connection, most_share)
        return added

    def task_ids(self) -> list[str]:
        """Return the ids of all comparisons and rankings of models, sorted."""
        query = sa.select(tasks.c.task_id).where(tasks.c.models.is_not(sa.null()))
        with self._database.read() as connection:
            return sorted(connection.scalars(query))

    def set_wordings(self, texts: Mapping[Axis, str]) -> None:
        """Let raters be shown these words from now on; earlier versions are kept."""
        with self._database.write_alone() as connection:
            for axis, text in texts.items():
                version = hashlib.sha256(text.encode()).hexdigest()
                if find_row(connection, wordings, version) is None:
                    row = {"version": version, "axis": axis, "text": text}
                    connection.execute(sa.insert(wordings).values(row))
                _set(connection, f"wording {axis}", version)


def present_wording(connection: sa.Connection, task: Task) -> str | None:
    """Return the version of the words with which a task is asked now; None without any."""
    row = None if task.axis is None else find_row(connection, settings, f"wording {task.axis}")
    return None if row is None else str(row.value)


def wording_texts(
    connection: sa.Connection, versions: Collection[str | None]
) -> dict[str | None, str]:
    """Return the words of each version."""
    known = {version for version in versions if version is not None}
    if not known:
        return {}
    query = sa.select(wordings).where(wordings.c.version.in_(known))
    return {row.version: row.text for row in connection.execute(query)}


def spent_axes(connection: sa.Connection, rater_id: str, now: datetime) -> list[str]:
    """Return the axes on which the rater has given or holds as many answers as one rater may."""
    row = find_row(connection, settings, MOST)
    if row is None:
        return []
    given = connection.execute(_OF_RATER, {"of_rater": rater_id, "now": now})
    counts: dict[str, int] = {axis: count for axis, count in given}  # noqa: C416 - rows are no pairs to mypy
    return [axis for axis, most in json.loads(row.value).items() if counts.get(axis, 0) >= most]


def _limit_raters(connection: sa.Connection, most_share: float) -> None:
    wanted = sa.select(tasks.c.axis, sa.func.sum(tasks.c.overlap)).where(tasks.c.axis.is_not(None))
    totals = connection.execute(wanted.group_by(tasks.c.axis))
    most = {axis: max(1, math.ceil(most_share * int(total))) for axis, total in totals}
    connection.execute(sa.delete(settings).where(settings.c.name == MOST))
    if most_share < 1:
        _set(connection, MOST, json.dumps(most, sort_keys=True))


def _set(connection: sa.Connection, name: str, value: str) -> None:
    connection.execute(sa.delete(settings).where(settings.c.name == name))
    connection.execute(sa.insert(settings).values(name=name, value=value))
