"""SQL conditions and parameters that several queries of the feedback store share."""

from datetime import datetime

import sqlalchemy as sa

from data.feedback import Source
from data.kinds.registry import TaskKind
from data.store.tables import reports, task_images, tasks

TASK: sa.BindParameter[str] = sa.bindparam("of_task")
RATER: sa.BindParameter[str] = sa.bindparam("of_rater")
NOW: sa.BindParameter[datetime] = sa.bindparam("now")
SPENT_AXES: sa.BindParameter[str] = sa.bindparam("spent", expanding=True)
EXCLUDED_TASKS: sa.BindParameter[str] = sa.bindparam("excluding", expanding=True)

NO_CHECK = sa.and_(tasks.c.gold_source.is_(None), tasks.c.repeat_of.is_(None))
"""The condition that a task is neither hidden gold nor a repeat."""

OUT_OF_CIRCULATION = reports.c.state.in_(("open", "removed"))
"""The condition that a report keeps its image from raters."""

WITHHELD_IMAGES = sa.select(reports.c.image_id).where(OUT_OF_CIRCULATION)
"""The images that are kept from raters; some occur more than once."""

WITHHELD_TASKS = sa.select(task_images.c.task_id).where(task_images.c.image_id.in_(WITHHELD_IMAGES))
"""The tasks with an image that is kept from raters; some occur more than once."""

IS_WITHHELD = sa.exists().where(
    task_images.c.task_id == tasks.c.task_id,
    reports.c.image_id == task_images.c.image_id,
    OUT_OF_CIRCULATION,
)
"""The condition that a task is one of `WITHHELD_TASKS`.

It is quicker to check for a few tasks; to select all of them `WITHHELD_TASKS` is quicker."""


def is_of_kind(kind: TaskKind | None) -> sa.ColumnElement[bool]:
    """Return the condition that a task is of this kind; None accepts every kind."""
    return sa.true() if kind is None else tasks.c.kind == kind


def live_labels(source: Source) -> sa.Column[int]:
    """Return the column that counts a task's live labels in the places of raters of this source.

    People and simulated raters have separate places; an imported label takes one of each.
    """
    return tasks.c.n_simulated if source == "simulated" else tasks.c.n_live
