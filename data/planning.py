"""Changes of a plan that is in the store already: gold, repeats and priorities; each function works within the caller's transaction."""

import hashlib
from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from data.feedback import NewTask
from data.queries import find_row, insert_rows, lock_task
from data.tables import settings, task_images, tasks


def update_gold(connection: sa.Connection, wanted: Mapping[str, NewTask]) -> None:
    """Makes known tasks hidden gold as they are wanted, by task id; of each source named, what is gold no more is ordinary again."""
    sources = {task.gold_source for task in wanted.values()} - {None}
    for known in connection.execute(sa.select(tasks).where(tasks.c.repeat_of.is_(None))).all():
        task = wanted.get(known.task_id)
        gold = (None, None) if task is None or task.gold_source is None else (task.gold_json, task.gold_source)
        concerned = gold[1] is not None or known.gold_source in sources
        if concerned and gold != (known.gold_json, known.gold_source):
            overlap = task.overlap if task is not None else max(known.n_live, 1)  # not planned otherwise: nobody is asked any more
            values = {"gold_json": gold[0], "gold_source": gold[1], "overlap": overlap}
            connection.execute(sa.update(tasks).where(tasks.c.task_id == known.task_id).values(values))


def set_priorities(connection: sa.Connection, image_priorities: Mapping[str, float], now: datetime) -> None:
    """Gives every task the highest priority of its images, 0 for images that are not named.

    None named at all: priorities that were set so before are 0 again, those of the plan stay.
    """
    were_set = connection.execute(sa.delete(settings).where(settings.c.name == "priorities")).rowcount > 0
    if not image_priorities and not were_set:
        return
    if image_priorities:
        connection.execute(sa.insert(settings).values(name="priorities", value=now.isoformat()))
    highest: dict[str, float] = {}
    for row in connection.execute(sa.select(task_images.c.task_id, task_images.c.image_id)):
        priority = image_priorities.get(row.image_id, 0.0)
        highest[row.task_id] = max(priority, highest.get(row.task_id, priority))
    changed = [
        {"of_task": row.task_id, "priority": highest[row.task_id]}
        for row in connection.execute(sa.select(tasks.c.task_id, tasks.c.priority))
        if row.priority != highest[row.task_id]
    ]
    if changed:
        connection.execute(sa.update(tasks).where(tasks.c.task_id == sa.bindparam("of_task")), changed)


def add_repeat(connection: sa.Connection, earlier: str, now: datetime) -> str:
    """The task that asks the same as an earlier one again, made if it is not there; returns its id."""
    task_id = hashlib.sha256(f"repeat of {earlier}".encode()).hexdigest()
    image_ids = lock_task(connection, earlier).image_ids  # of two claims that repeat it at once, one makes the task and the other finds it
    if find_row(connection, tasks, task_id) is None:
        row = find_row(connection, tasks, earlier)
        assert row is not None
        again = {"task_id": task_id, "n_live": 0, "gold_json": None, "repeat_of": earlier, "created_at": now}
        connection.execute(sa.insert(tasks).values(dict(row._mapping) | again))  # noqa: SLF001 - SQLAlchemy's public name
        images = [{"task_id": task_id, "position": place, "image_id": image_id} for place, image_id in enumerate(image_ids)]
        insert_rows(connection, task_images, images)
    return task_id
