"""Changes of a plan that is in the store already: overlap, gold, repeats, priorities; each function works in its caller's transaction."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from data.feedback import NewTask
from data.queries import find_row, insert_rows, lock_task
from data.tables import settings, task_images, tasks


def update_plan(connection: sa.Connection, wanted: Mapping[str, NewTask]) -> None:
    """Gives known tasks the overlap and the hidden gold that they are wanted with, by task id.

    What a source of gold named now or the last time does not name any more is ordinary again; gold from elsewhere stays.
    """
    named = {task.gold_source for task in wanted.values() if task.gold_source is not None}
    own = named | _replace_sources(connection, named)
    for known in connection.execute(sa.select(tasks).where(tasks.c.repeat_of.is_(None))).all():
        task = wanted.get(known.task_id)
        values = {
            "gold_json": known.gold_json,
            "gold_source": known.gold_source,
            "overlap": known.overlap,
        }
        if task is not None and task.gold_source is not None:
            planned = {
                "gold_json": task.gold_json,
                "gold_source": task.gold_source,
                "overlap": task.overlap,
            }
        elif known.gold_source in own:
            overlap = (
                task.overlap if task is not None else max(known.n_live, known.n_simulated, 1)
            )  # not planned otherwise: nobody is asked any more
            planned = {"gold_json": None, "gold_source": None, "overlap": overlap}
        elif task is not None and known.gold_source is None:
            planned = values | {"overlap": task.overlap}
        else:
            continue
        if planned != values:
            connection.execute(
                sa.update(tasks).where(tasks.c.task_id == known.task_id).values(planned)
            )


def _replace_sources(connection: sa.Connection, named: set[str]) -> set[str]:
    """Remembers the plan's sources of gold; returns those of the plan before."""
    text = connection.scalar(sa.select(settings.c.value).where(settings.c.name == "gold_sources"))
    before = set(json.loads(text)) if text is not None else set()
    if named != before:  # replicas that start at once with the same plan must not meet here
        connection.execute(sa.delete(settings).where(settings.c.name == "gold_sources"))
        connection.execute(
            sa.insert(settings).values(name="gold_sources", value=json.dumps(sorted(named)))
        )
    return before


def set_priorities(
    connection: sa.Connection, image_priorities: Mapping[str, float], now: datetime
) -> None:
    """Gives every task the highest priority of its images, 0 for images that are not named.

    None named at all: priorities that were set so before are 0 again, those of the plan stay.
    """
    were_set = (
        connection.execute(sa.delete(settings).where(settings.c.name == "priorities")).rowcount > 0
    )
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
        connection.execute(
            sa.update(tasks).where(tasks.c.task_id == sa.bindparam("of_task")), changed
        )


def add_repeat(connection: sa.Connection, earlier: str, now: datetime) -> str:
    """The task that asks the same as an earlier one again, made if it is not there; returns its id."""
    task_id = hashlib.sha256(f"repeat of {earlier}".encode()).hexdigest()
    image_ids = lock_task(
        connection, earlier
    ).image_ids  # of two claims that repeat it at once, one makes the task and the other finds it
    if find_row(connection, tasks, task_id) is None:
        row = find_row(connection, tasks, earlier)
        assert row is not None
        again = {
            "task_id": task_id,
            "n_live": 0,
            "n_simulated": 0,
            "gold_json": None,
            "repeat_of": earlier,
            "created_at": now,
        }
        connection.execute(sa.insert(tasks).values(dict(row._mapping) | again))  # noqa: SLF001 - SQLAlchemy's public name
        images = [
            {"task_id": task_id, "position": place, "image_id": image_id}
            for place, image_id in enumerate(image_ids)
        ]
        insert_rows(connection, task_images, images)
    return task_id
