"""Comparisons in the store: their tasks, the words of their axes, and each rater's share."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from data.comparisons import Axis
from data.feedback import NewTask
from data.store.database import StorePart
from data.store.plan.planning import insert_tasks, task_id_of
from data.store.plan.task_queue import MOST
from data.store.queries import find_row, write_setting
from data.store.tables import tasks, wordings


@dataclass(frozen=True)
class Comparisons(StorePart):
    """Comparisons of models; `FeedbackStore.comparisons` is one."""

    order_seed: str

    def add(self, new_tasks: Iterable[NewTask], *, most_share: float) -> int:
        """Add comparisons, all or none; return how many are new.

        Those that are there get the overlap, priority, subject, reference and steps of the new
        ones. Other tasks stay as they are. A rater is then given at most `most_share` of the
        answers that are wanted on each axis, and at least one.
        """
        wanted = {task_id_of(task): task for task in new_tasks}
        changing = {"overlap", "priority", "subject", "reference", "steps"}
        with self.database.write() as connection:
            for task_id, task in wanted.items():
                known = sa.update(tasks).where(tasks.c.task_id == task_id)
                connection.execute(known.values(task.model_dump(include=changing)))
            now = self.clock()
            added = insert_tasks(connection, wanted.values(), now, order_seed=self.order_seed)
            _limit_raters(connection, most_share)
        return added

    def task_ids(self) -> list[str]:
        """Return the ids of all comparisons and rankings of models, sorted."""
        query = sa.select(tasks.c.task_id).where(tasks.c.models.is_not(sa.null()))
        with self.database.read() as connection:
            return sorted(connection.scalars(query))

    def set_wordings(self, texts: Mapping[Axis, str]) -> None:
        """Let raters be shown these words from now on; earlier versions are kept."""
        with self.database.write_alone() as connection:
            for axis, text in texts.items():
                version = hashlib.sha256(text.encode()).hexdigest()
                if find_row(connection, wordings, version) is None:
                    row = {"version": version, "axis": axis, "text": text}
                    connection.execute(sa.insert(wordings).values(row))
                write_setting(connection, f"wording {axis}", version)


def _limit_raters(connection: sa.Connection, most_share: float) -> None:
    wanted = sa.select(tasks.c.axis, sa.func.sum(tasks.c.overlap)).where(tasks.c.axis.is_not(None))
    totals = connection.execute(wanted.group_by(tasks.c.axis))
    most = {axis: max(1, math.ceil(most_share * int(total))) for axis, total in totals}
    limits = json.dumps(most, sort_keys=True) if most_share < 1 else None
    write_setting(connection, MOST, limits)
