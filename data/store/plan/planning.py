"""Tasks and the plan behind them: new tasks, and changes of overlap, gold and repeats.

Each function works in its caller's transaction.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa

from data.feedback import NewTask
from data.kinds.registry import TaskKind
from data.schema import prompt_id
from data.store.queries import Row, find_row, insert_rows, lock_task
from data.store.tables import prompts, settings, task_images, tasks

_PLANNED = ("gold_json", "gold_source", "overlap")
"""Columns of a task that planning again can change."""


def with_asked_overlap(
    new_tasks: Iterable[NewTask], overlaps: Mapping[TaskKind, int]
) -> list[NewTask]:
    """Return the tasks with the overlap that an admin asked for of their kind; gold keeps its own.

    Args:
        new_tasks: what the run's settings plan.
        overlaps: `data.store.store_settings.read_overlaps`.
    """
    return [
        task.model_copy(update={"overlap": overlaps[task.kind]})
        if task.kind in overlaps and task.gold_source is None
        else task
        for task in new_tasks
    ]


def task_id_of(task: NewTask) -> str:
    """Return the task's identity: SHA-256 of kind, axis and image ids in whatever order."""
    asked = [task.kind] if task.axis is None else [task.kind, task.axis]
    return hashlib.sha256("\n".join([*asked, *sorted(task.image_ids)]).encode()).hexdigest()


def insert_tasks(
    connection: sa.Connection, new_tasks: Iterable[NewTask], now: datetime, *, order_seed: str
) -> int:
    """Insert the tasks that are not in the store yet; return how many.

    Tasks of one priority are asked in an order that `order_seed` determines.
    """
    known_tasks = set(connection.scalars(sa.select(tasks.c.task_id)))
    known_prompts = set(connection.scalars(sa.select(prompts.c.prompt_id)))
    wanted = {task_id_of(task): task for task in new_tasks}
    added = {task_id: task for task_id, task in wanted.items() if task_id not in known_tasks}
    new_prompts = {prompt_id(task.prompt): task.prompt for task in added.values()}
    prompt_rows: list[dict[str, object]] = [
        {"prompt_id": key, "prompt": text}
        for key, text in new_prompts.items()
        if key not in known_prompts
    ]
    insert_rows(connection, prompts, prompt_rows)
    task_rows = (_task_row(task_id, task, now, order_seed) for task_id, task in added.items())
    insert_rows(connection, tasks, task_rows)
    image_rows: Iterable[dict[str, object]] = (
        {"task_id": task_id, "position": position, "image_id": image_id}
        for task_id, task in added.items()
        for position, image_id in enumerate(task.image_ids)
    )
    insert_rows(connection, task_images, image_rows)
    return len(added)


def _task_row(task_id: str, task: NewTask, now: datetime, order_seed: str) -> dict[str, object]:
    order = hashlib.sha256(f"{order_seed}:{task_id}".encode()).digest()[:8]
    return planned_values(task) | {
        "task_id": task_id,
        "kind": task.kind,
        "prompt_id": prompt_id(task.prompt),
        "n_live": 0,
        "n_simulated": 0,
        "priority": task.priority,
        "order_key": int.from_bytes(order, "big", signed=True),
        "created_at": now,
        "axis": task.axis,
        "models": list(task.models) or None,
        "subject": task.subject,
        "reference": task.reference,
        "steps": task.steps,
    }


def planned_values(task: NewTask) -> dict[str, object]:
    """Return the columns of a task that planning again can change."""
    return {
        "gold_json": None if task.gold is None else task.gold.model_dump_json(),
        "gold_source": task.gold_source,
        "overlap": task.overlap,
    }


def update_plan(connection: sa.Connection, wanted: Mapping[str, NewTask]) -> None:
    """Give known tasks the overlap and the hidden gold of `wanted`, by task id.

    A task that its gold source no longer lists becomes an ordinary task, whether the source is
    named now or was named by the plan before. Gold from other sources is kept.
    """
    named = {task.gold_source for task in wanted.values() if task.gold_source is not None}
    own_sources = named | _replace_sources(connection, named)
    counts, plan = (tasks.c.n_live, tasks.c.n_simulated), (tasks.c[name] for name in _PLANNED)
    known_tasks = sa.select(tasks.c.task_id, *counts, *plan).where(tasks.c.repeat_of.is_(None))
    changes = [
        {"of_task": known.task_id, **changed}
        for known in connection.execute(known_tasks)
        if (changed := _changed_plan(known, wanted.get(known.task_id), own_sources))
    ]
    if changes:
        update = sa.update(tasks).where(tasks.c.task_id == sa.bindparam("of_task"))
        connection.execute(update, changes)


def _changed_plan(known: Row, task: NewTask | None, own_sources: set[str]) -> dict[str, object]:
    """Return the planned columns of a known task if they change; empty if they do not."""
    before = {name: getattr(known, name) for name in _PLANNED}
    if task is not None and task.gold_source is not None:
        planned = planned_values(task)
    elif known.gold_source in own_sources:
        planned = {"gold_json": None, "gold_source": None}
        # Where the task is gold alone and not planned otherwise, nobody is asked any more.
        answered = max(known.n_live, known.n_simulated, 1)
        planned["overlap"] = answered if task is None else task.overlap
    elif task is not None and known.gold_source is None:
        planned = before | {"overlap": task.overlap}
    else:
        return {}
    return planned if planned != before else {}


def _replace_sources(connection: sa.Connection, named: set[str]) -> set[str]:
    """Remember the plan's sources of gold; return those of the plan before."""
    text = connection.scalar(sa.select(settings.c.value).where(settings.c.name == "gold_sources"))
    before = set(json.loads(text)) if text is not None else set()
    if named != before:  # replicas that start at once with the same plan must not meet here
        connection.execute(sa.delete(settings).where(settings.c.name == "gold_sources"))
        connection.execute(
            sa.insert(settings).values(name="gold_sources", value=json.dumps(sorted(named)))
        )
    return before


def add_repeat(connection: sa.Connection, earlier: str, now: datetime) -> str:
    """Add the task that asks an earlier one again, if it is not there; return its id."""
    task_id = hashlib.sha256(f"repeat of {earlier}".encode()).hexdigest()
    # The lock: of two claims that repeat it at once, one makes the task and the other finds it.
    image_ids = lock_task(connection, earlier).image_ids
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
        images: list[dict[str, object]] = [
            {"task_id": task_id, "position": place, "image_id": image_id}
            for place, image_id in enumerate(image_ids)
        ]
        insert_rows(connection, task_images, images)
    return task_id
