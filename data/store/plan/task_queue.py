"""The queue of tasks: the choice of a rater's next task, and checks of the rater.

Checks are hidden gold, and repeats of tasks that the rater answered before. Each function works in
its caller's transaction.
"""

import random
from collections.abc import Collection
from functools import cache
from typing import Any

import sqlalchemy as sa

from data.feedback import ChecksConfig, Source
from data.kinds.registry import TaskKind
from data.store.leases import ClaimRequest, find_lease, has_place, live_leases
from data.store.plan.planning import add_repeat
from data.store.queries import (
    EXCLUDED_TASKS,
    IS_WITHHELD,
    NO_CHECK,
    RATER,
    is_of_kind,
    live_labels,
)
from data.store.tables import labels, leases, tasks

REPEAT_AFTER = 10
"""A task may be repeated once its rater has given this many other answers."""

REPEAT_AMONG = 100
"""Number of the rater's earlier answers from which a repeat is drawn."""


@cache
def _first_free(
    source: Source, kind: TaskKind | None, *, gold: bool, skip_locked: bool
) -> sa.Select[Any]:
    n_live = live_labels(source)
    # "is not false" makes SQLite use the index of task and rater; otherwise it would scan all
    # labels of the rater for each task.
    answered = sa.exists().where(
        labels.c.task_id == tasks.c.task_id,
        labels.c.rater_id == RATER,
        labels.c.is_live.is_not(sa.false()),
    )
    first_in_order = (n_live,) if gold else (tasks.c.priority.desc(),)
    return (
        sa.select(tasks.c.task_id)
        # the first condition is the condition of the queue's partial index
        .where(
            n_live < tasks.c.overlap,
            n_live + live_leases(source) < tasks.c.overlap,
            ~answered,
            is_of_kind(kind),
        )
        .where(
            tasks.c.gold_source.is_not(None) if gold else NO_CHECK,
            tasks.c.task_id.not_in(EXCLUDED_TASKS),
        )
        .where(~IS_WITHHELD)
        .order_by(*first_in_order, tasks.c.order_key)
        .limit(1)
        .with_for_update(skip_locked=skip_locked, of=tasks)
    )


def free_task(
    request: ClaimRequest, excluding: Collection[str], *, gold: bool = False
) -> str | None:
    """Lock and return the first task that has a free place and that the rater has not answered.

    With `gold`, return the hidden gold task with the fewest answers.
    """
    connection, rater, now = request.connection, request.rater, request.now
    values = {"of_rater": rater.rater_id, "now": now, "excluding": list(excluding)}
    if connection.dialect.name == "sqlite":  # SQLite has one write transaction at a time
        first: str | None = connection.scalar(
            _first_free(rater.source, request.kind, gold=gold, skip_locked=False), values
        )
        return first
    # On PostgreSQL, tasks that another claim has locked are skipped; the claim waits for them only
    # if there are no others.
    for skip_locked in (True, False):
        query = _first_free(rater.source, request.kind, gold=gold, skip_locked=skip_locked)
        while (task_id := connection.scalar(query, values)) is not None:
            # The query may have read leases from before another claim's commit: check again under
            # the lock.
            if has_place(connection, task_id, rater.source, now):
                return str(task_id)
    return None


def draw_check(
    request: ClaimRequest, excluding: Collection[str], config: ChecksConfig, rng: random.Random
) -> tuple[str, list[int] | None] | None:
    """Draw whether the rater's next task is a check; None for an ordinary task.

    Returns:
        The task's id, and the order of its images on the screen; None leaves the order to chance.
    """
    if not config.gold_share and not config.repeat_share:
        return None
    drawn = rng.random()
    if drawn < config.gold_share:
        gold = free_task(request, excluding, gold=True)
        return None if gold is None else (gold, None)
    if drawn - config.gold_share < config.repeat_share:
        earlier = _repeatable_tasks(request)
        return _repeat(request, rng.choice(earlier)) if earlier else None
    return None


def _repeatable_tasks(request: ClaimRequest) -> list[str]:
    """Return tasks that the rater answered a while ago and that may be repeated.

    Checks, tasks repeated before and comparisons are excluded: a rater sees no pair twice.
    """
    rater_id = request.rater.rater_id
    again = tasks.alias()
    repeated = sa.exists().where(
        again.c.repeat_of == tasks.c.task_id,
        again.c.task_id == leases.c.task_id,
        leases.c.rater_id == rater_id,
    )
    answered = (
        sa.select(labels.c.task_id)
        .join(tasks, tasks.c.task_id == labels.c.task_id)
        .where(labels.c.rater_id == rater_id, labels.c.is_live)
        .where(NO_CHECK, tasks.c.axis.is_(None), is_of_kind(request.kind), ~IS_WITHHELD)
        .order_by(labels.c.sequence.desc())
    )
    earlier = answered.offset(REPEAT_AFTER).limit(REPEAT_AMONG).subquery()
    is_earlier = tasks.c.task_id.in_(sa.select(earlier.c.task_id))
    found = request.connection.scalars(sa.select(tasks.c.task_id).where(is_earlier, ~repeated))
    return sorted(found)


def _repeat(request: ClaimRequest, earlier: str) -> tuple[str, list[int]] | None:
    """Repeat an earlier task, with its images in mirrored order."""
    connection, rater = request.connection, request.rater
    task_id = add_repeat(connection, earlier, request.now)
    if not has_place(connection, task_id, rater.source, request.now):
        return None
    before = find_lease(connection, earlier, rater.rater_id)
    assert before is not None
    return task_id, [len(before.shown_order) - 1 - place for place in before.shown_order]
