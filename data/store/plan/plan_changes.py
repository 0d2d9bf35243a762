"""Changes of the plan while raters label: overlap raised, gold added.

They outlive a restart: the next plan of the run's settings leaves them as they are.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa

from data.feedback import NewTask
from data.kinds.registry import TaskKind
from data.store.conditions import NO_CHECK
from data.store.database import Database
from data.store.people.audit import record
from data.store.plan.planning import insert_tasks, planned_values, task_id_of
from data.store.store_settings import read_overlaps, write_overlaps
from data.store.tables import tasks

LARGEST_OVERLAP = 1000


class PlanChanges:
    """Changes that admins make; `FeedbackStore.plan` is one."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], *, order_seed: str
    ) -> None:
        self._database = database
        self._clock = clock
        self._order_seed = order_seed

    def overlaps(self) -> dict[TaskKind, tuple[int, int]]:
        """Return the smallest and the largest overlap of the tasks of each kind, without checks."""
        query = (
            sa.select(tasks.c.kind, sa.func.min(tasks.c.overlap), sa.func.max(tasks.c.overlap))
            .where(NO_CHECK)
            .group_by(tasks.c.kind)
            .order_by(tasks.c.kind)
        )
        with self._database.read() as connection:
            return {kind: (low, high) for kind, low, high in connection.execute(query)}

    def set_overlap(self, kind: TaskKind, overlap: int, admin_id: str) -> None:
        """Ask so many people about each task of this kind, and about those planned later.

        Labels beyond a smaller overlap stay.
        """
        of_kind = sa.and_(tasks.c.kind == kind, NO_CHECK)
        with self._database.write() as connection:
            before = connection.scalars(
                sa.select(tasks.c.overlap).where(of_kind).distinct().order_by(tasks.c.overlap)
            ).all()
            change = sa.update(tasks).where(of_kind, tasks.c.overlap != overlap)
            connection.execute(change.values(overlap=overlap))
            write_overlaps(connection, read_overlaps(connection) | {kind: overlap})
            record(
                connection,
                "set_overlap",
                self._clock(),
                admin_id,
                before={"kind": kind, "overlap": list(before)},
                after={"kind": kind, "overlap": overlap},
            )

    def add_gold(self, gold: Sequence[NewTask], admin_id: str) -> int:
        """Add tasks with right answers, which are hidden among the others; return how many are new.

        A task that is known becomes gold, or gets this right answer. Its labels stay.
        """
        with self._database.write() as connection:
            now = self._clock()
            added = insert_tasks(connection, gold, now, order_seed=self._order_seed)
            for task in gold:
                update = sa.update(tasks).where(tasks.c.task_id == task_id_of(task))
                connection.execute(update.values(planned_values(task)))
            sources = sorted({task.gold_source for task in gold if task.gold_source is not None})
            after = {"tasks": len(gold), "new": added, "sources": sources}
            record(connection, "add_gold", now, admin_id, after=after)
        return added
