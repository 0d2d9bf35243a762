"""Rows of the feedback store by their keys; each function works in its caller's transaction.

Statements that every claim and every answer needs are built once, here and in the modules beside
this one, with their values as parameters: SQLAlchemy takes five times as long to build a statement
as to run it.
"""

from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Any

import sqlalchemy as sa

from data.feedback import NotFound, Task
from data.store.conditions import TASK
from data.store.tables import prompts, raters, task_images, tasks

Row = sa.Row[Any]

_ASKED = (
    sa.select(
        tasks.c.kind,
        prompts.c.prompt,
        tasks.c.axis,
        tasks.c.subject,
        tasks.c.reference,
        tasks.c.steps,
    )
    .join(prompts, prompts.c.prompt_id == tasks.c.prompt_id)
    .where(tasks.c.task_id == TASK)
)
_ASKED_LOCKED = _ASKED.with_for_update(of=tasks)
_IMAGES = (
    sa.select(task_images.c.image_id)
    .where(task_images.c.task_id == TASK)
    .order_by(task_images.c.position)
)


ROWS_AT_ONCE = 10_000
"""Rows that are inserted by one statement; those of a million tasks would not fit into memory."""


def insert_rows(
    connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, object]]
) -> None:
    """Insert rows, if there are any."""
    left = iter(rows)
    while some := list(islice(left, ROWS_AT_ONCE)):
        connection.execute(sa.insert(table), some)


@cache
def _with_key(table: sa.Table, *, lock: bool) -> sa.Select[Any]:
    (column,) = table.primary_key.columns
    query = sa.select(table).where(column == sa.bindparam("key"))
    return query.with_for_update() if lock else query


def find_row(connection: sa.Connection, table: sa.Table, key: str) -> Row | None:
    """Return the row of a table with this primary key."""
    return connection.execute(_with_key(table, lock=False), {"key": key}).one_or_none()


def load_rater(connection: sa.Connection, rater_id: str, *, lock: bool = False) -> Row:
    """Return the rater's row; with `lock` no other transaction can change it until this one ends.

    Raises:
        NotFound: no such rater.
    """
    row = connection.execute(_with_key(raters, lock=lock), {"key": rater_id}).one_or_none()
    if row is None:
        raise NotFound(f"rater {rater_id}: not known; sign in again")
    return row


def load_task(
    connection: sa.Connection, task_id: str, *, asked: sa.Select[Any, Any] = _ASKED
) -> Task:
    """Return the task as raters see it.

    Raises:
        NotFound: no such task.
    """
    row = connection.execute(asked, {"of_task": task_id}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"task {task_id}: not known; claim a task first")
    image_ids = connection.scalars(_IMAGES, {"of_task": task_id})
    return Task(task_id=task_id, image_ids=tuple(image_ids), **row)


def lock_task(connection: sa.Connection, task_id: str) -> Task:
    """Return the task and lock it: no other transaction can answer or claim it until this one ends.

    Raises:
        NotFound: no such task.
    """
    # SQLite's write transaction is alone anyway; PostgreSQL serializes here what touches one task.
    return load_task(connection, task_id, asked=_ASKED_LOCKED)
