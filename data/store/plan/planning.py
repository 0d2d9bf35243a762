"""Tasks and the plan behind them: new tasks, and changes of overlap, gold and repeats.

Each function works in its caller's transaction.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from data.comparisons import Axis
from data.feedback import NewTask
from data.schema import prompt_id
from data.store.database import StorePart
from data.store.queries import (
    Row,
    find_row,
    insert_rows,
    load_task,
    read_setting,
    write_setting,
)
from data.store.tables import prompts, task_images, tasks, wordings


@dataclass(eq=False)
class Comparisons(StorePart):
    """Comparisons of models: `FeedbackStore.comparisons`."""

    order_seed: str

    def add(self, new_tasks: Iterable[NewTask]) -> int:
        """Add comparisons, all or none; return how many are new.

        Known comparisons get the overlap and priority of the new ones. Other tasks stay as they
        are.
        """
        wanted = {task_id_of(task): task for task in new_tasks}
        with self.write() as (connection, now):
            for task_id, task in wanted.items():
                known = sa.update(tasks).where(tasks.c.task_id == task_id)
                connection.execute(known.values(overlap=task.overlap, priority=task.priority))
            return insert_tasks(connection, wanted.values(), now, order_seed=self.order_seed)

    def task_ids(self) -> list[str]:
        """Return the ids of all comparisons, sorted."""
        query = sa.select(tasks.c.task_id).where(tasks.c.models.is_not(sa.null()))
        with self.database.read() as connection:
            return sorted(connection.scalars(query))

    def set_wordings(self, texts: Mapping[Axis, str]) -> None:
        """Set the wordings that raters see from now on; earlier versions are kept."""
        with self.database.write_alone() as connection:
            for axis, text in texts.items():
                version = hashlib.sha256(text.encode()).hexdigest()
                if find_row(connection, wordings, version) is None:
                    row = {"version": version, "axis": axis, "text": text}
                    connection.execute(sa.insert(wordings).values(row))
                write_setting(connection, f"wording {axis}", version)


def task_id_of(task: NewTask) -> str:
    """Return the task's identity: SHA-256 of kind, axis and sorted image ids."""
    asked = [task.kind] if task.axis is None else [task.kind, task.axis]
    return hashlib.sha256("\n".join([*asked, *sorted(task.image_ids)]).encode()).hexdigest()


def insert_tasks(
    connection: sa.Connection, new_tasks: Iterable[NewTask], now: datetime, *, order_seed: str
) -> int:
    """Insert the tasks that are not in the store yet; return their number.

    `order_seed` determines the order of tasks of the same priority.
    """
    known_tasks = set(connection.scalars(sa.select(tasks.c.task_id)))
    known_prompts = set(connection.scalars(sa.select(prompts.c.prompt_id)))
    wanted = {task_id_of(task): task for task in new_tasks}
    added = {task_id: task for task_id, task in wanted.items() if task_id not in known_tasks}
    new_prompts = {prompt_id(task.prompt): task.prompt for task in added.values()}
    prompt_rows = ({"prompt_id": key, "prompt": text} for key, text in new_prompts.items())
    missing = (row for row in prompt_rows if row["prompt_id"] not in known_prompts)
    insert_rows(connection, prompts, missing)
    task_rows = (_task_row(task_id, task, now, order_seed) for task_id, task in added.items())
    insert_rows(connection, tasks, task_rows)
    images = (row for task_id, task in added.items() for row in _images(task_id, task.image_ids))
    insert_rows(connection, task_images, images)
    return len(added)


def _task_row(task_id: str, task: NewTask, now: datetime, order_seed: str) -> dict[str, object]:
    order = hashlib.sha256(f"{order_seed}:{task_id}".encode()).digest()[:8]
    return _planned_values(task) | {
        "task_id": task_id,
        "kind": task.kind,
        "priority": task.priority,
        "axis": task.axis,
        "prompt_id": prompt_id(task.prompt),
        "n_live": 0,
        "n_simulated": 0,
        "order_key": int.from_bytes(order, "big", signed=True),
        "created_at": now,
        "models": list(task.models) or None,
    }


def _images(task_id: str, image_ids: Iterable[str]) -> Iterator[dict[str, object]]:
    for position, image_id in enumerate(image_ids):
        yield {"task_id": task_id, "position": position, "image_id": image_id}


def _planned_values(task: NewTask) -> dict[str, object]:
    """Return the columns of a task that a new plan can change."""
    return {
        "gold_json": None if task.gold is None else task.gold.model_dump_json(),
        "gold_source": task.gold_source,
        "overlap": task.overlap,
    }


def update_plan(connection: sa.Connection, wanted: Mapping[str, NewTask]) -> None:
    """Set the overlap and the hidden gold of known tasks from `wanted`, by task id.

    If a gold source of this plan or of the previous plan no longer lists a task, the task becomes
    an ordinary task. Gold from other sources is kept.
    """
    named = {task.gold_source for task in wanted.values() if task.gold_source is not None}
    own_sources = named | _replace_sources(connection, named)
    plan = (tasks.c.gold_json, tasks.c.gold_source, tasks.c.overlap)
    counts = (tasks.c.n_live, tasks.c.n_simulated)
    known_tasks: sa.Select[Any] = sa.select(*plan, tasks.c.task_id, *counts).where(
        tasks.c.repeat_of.is_(None)
    )
    changes = [
        {"of_task": known.task_id, **changed}
        for known in connection.execute(known_tasks)
        if (changed := _changed_plan(known, wanted.get(known.task_id), own_sources))
    ]
    if changes:
        update = sa.update(tasks).where(tasks.c.task_id == sa.bindparam("of_task"))
        connection.execute(update, changes)


def _changed_plan(known: Row, task: NewTask | None, own_sources: set[str]) -> dict[str, object]:
    """Return the changed planned columns of a known task; empty if none changes."""
    before = {"gold_json": known.gold_json, "gold_source": known.gold_source}
    before["overlap"] = known.overlap
    if task is not None and task.gold_source is not None:
        planned = _planned_values(task)
    elif known.gold_source in own_sources:
        planned = {"gold_json": None, "gold_source": None}
        # A task that was planned only as gold gets its number of answers as overlap: no rater is
        # asked any more.
        answered = max(known.n_live, known.n_simulated, 1)
        planned["overlap"] = answered if task is None else task.overlap
    elif task is not None and known.gold_source is None:
        planned = before | {"overlap": task.overlap}
    else:
        return {}
    return planned if planned != before else {}


def _replace_sources(connection: sa.Connection, named: set[str]) -> set[str]:
    """Store the plan's sources of gold; return the sources of the previous plan."""
    before = set(json.loads(read_setting(connection, "gold_sources") or "[]"))
    if (
        named != before
    ):  # replicas that start at the same time with the same plan must not conflict here
        write_setting(connection, "gold_sources", json.dumps(sorted(named)))
    return before


def add_repeat(connection: sa.Connection, earlier: str, now: datetime) -> str:
    """Add the repeat of an earlier task, if it does not exist yet; return its id."""
    task_id = hashlib.sha256(f"repeat of {earlier}".encode()).hexdigest()
    # The lock: if two claims repeat a task at once, one adds the repeat and the other finds it.
    image_ids = load_task(connection, earlier, lock=True).image_ids
    if find_row(connection, tasks, task_id) is None:
        row = find_row(connection, tasks, earlier)
        assert row is not None
        again = {"task_id": task_id, "repeat_of": earlier, "created_at": now}
        unanswered = {"n_live": 0, "n_simulated": 0, "gold_json": None}
        insert_rows(connection, tasks, [dict(row._mapping) | again | unanswered])  # noqa: SLF001 - SQLAlchemy's public name
        insert_rows(connection, task_images, _images(task_id, image_ids))
    return task_id
