"""Rows, settings and conditions that several modules of the feedback store need.

Each function works in its caller's transaction. Statements of claims and answers are built once,
here and in the modules beside this one, and take their values as parameters: SQLAlchemy needs five
times as long to build a statement as to run it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import fields
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from data.feedback import NotFound, Source, Task
from data.kinds.registry import TaskKind
from data.store.tables import prompts, raters, reports, settings, task_images, tasks

Row = sa.Row[Any]

TASK: sa.BindParameter[str] = sa.bindparam("of_task")
RATER: sa.BindParameter[str] = sa.bindparam("of_rater")
NOW: sa.BindParameter[datetime] = sa.bindparam("now")
EXCLUDED_TASKS: sa.BindParameter[str] = sa.bindparam("excluding", expanding=True)

NO_CHECK = sa.and_(tasks.c.gold_source.is_(None), tasks.c.repeat_of.is_(None))
"""Condition: the task is neither hidden gold nor a repeat."""

OUT_OF_CIRCULATION = reports.c.state.in_(("open", "removed"))
"""Condition: the report takes its image out of circulation."""

UNDECIDED = reports.c.state.in_(("open", "waiting"))
"""Condition: the report waits for an admin's decision."""

WITHHELD_IMAGES = sa.select(reports.c.image_id).where(OUT_OF_CIRCULATION)
"""Query of the images that are out of circulation, with duplicates."""

WITHHELD_TASKS = sa.select(task_images.c.task_id).where(task_images.c.image_id.in_(WITHHELD_IMAGES))
"""Query of the tasks with an image that is out of circulation, with duplicates."""

IS_WITHHELD = sa.exists().where(
    task_images.c.task_id == tasks.c.task_id,
    reports.c.image_id == task_images.c.image_id,
    OUT_OF_CIRCULATION,
)
"""Condition: the task is withheld. Faster than `WITHHELD_TASKS` for a check of few tasks; to select
all withheld tasks, `WITHHELD_TASKS` is faster."""

INSERT_OF: dict[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""Insert statements that can update the row of the same key, by the dialect's name."""

ROWS_AT_ONCE = 10_000
"""Rows of one insert statement; the rows of a million tasks would not fit into memory."""

_AMONG = tasks.c.task_id.in_(sa.bindparam("task_ids", expanding=True))
_ASKED = (
    sa.select(prompts.c.prompt, *(tasks.c[one.name] for one in fields(Task) if one.name in tasks.c))
    .join(prompts, prompts.c.prompt_id == tasks.c.prompt_id)
    .where(_AMONG)
)
# in order, to avoid deadlocks
_ASKED_LOCKED = _ASKED.order_by(tasks.c.task_id).with_for_update(of=tasks)
_IMAGES = (
    sa.select(task_images.c.task_id, task_images.c.image_id)
    .where(task_images.c.task_id.in_(sa.bindparam("task_ids", expanding=True)))
    .order_by(task_images.c.position)
)


def is_of_kind(kind: TaskKind | None) -> sa.ColumnElement[bool]:
    """Return the condition that a task is of this kind; None accepts every kind."""
    return sa.true() if kind is None else tasks.c.kind == kind


def live_labels(source: Source) -> sa.Column[int]:
    """Return the column that counts a task's live labels by raters of this source.

    People and simulated raters are counted separately; an imported label counts as both.
    """
    return tasks.c.n_simulated if source == "simulated" else tasks.c.n_live


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
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


def read_setting(connection: sa.Connection, name: str) -> str | None:
    """Return a setting of the store; None before it is set."""
    row = find_row(connection, settings, name)
    return None if row is None else str(row.value)


def write_setting(connection: sa.Connection, name: str, value: str | None) -> None:
    """Replace a setting of the store; None removes it. Of two writes at once, the last counts."""
    if value is None:
        connection.execute(sa.delete(settings).where(settings.c.name == name))
        return
    insert = INSERT_OF[connection.dialect.name](settings).values(name=name, value=value)
    connection.execute(
        insert.on_conflict_do_update(index_elements=[settings.c.name], set_={"value": value})
    )


def load_rater(connection: sa.Connection, rater_id: str, *, lock: bool = False) -> Row:
    """Return the rater's row; `lock` keeps other transactions from changing it.

    Raises:
        NotFound: no such rater.
    """
    row = connection.execute(_with_key(raters, lock=lock), {"key": rater_id}).one_or_none()
    if row is None:
        raise NotFound(f"rater {rater_id}: not known; sign in again")
    return row


def load_tasks(
    connection: sa.Connection, task_ids: Collection[str], *, lock: bool = False
) -> dict[str, Task]:
    """Return the known tasks by id, as raters see them."""
    wanted = {"task_ids": list(task_ids)}
    rows = connection.execute(_ASKED_LOCKED if lock else _ASKED, wanted).mappings().all()
    image_ids: dict[str, list[str]] = {}
    for task_id, image_id in connection.execute(_IMAGES, wanted):
        image_ids.setdefault(task_id, []).append(image_id)
    return {row["task_id"]: Task(image_ids=tuple(image_ids[row["task_id"]]), **row) for row in rows}


def load_task(connection: sa.Connection, task_id: str, *, lock: bool = False) -> Task:
    """Return the task as raters see it.

    With `lock` no other transaction can answer or claim the task until this one ends. SQLite has
    one write transaction anyway; PostgreSQL serializes changes of one task here.

    Raises:
        NotFound: no such task.
    """
    task = load_tasks(connection, [task_id], lock=lock).get(task_id)
    if task is None:
        raise NotFound(f"task {task_id}: not known; claim a task first")
    return task
