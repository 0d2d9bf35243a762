"""Tasks that check a rater: hidden gold, and repeats of what they answered before."""

import random
from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from data.feedback import ChecksConfig
from data.kinds.registry import TaskKind
from data.store.leases import find_lease, has_place
from data.store.plan.planning import add_repeat
from data.store.queries import Row
from data.store.task_queue import free_task, repeatable_tasks

Check = tuple[str, list[int] | None]
"""Task id, and the order of its images on the screen; None leaves the order to chance."""


def draw_check(
    connection: sa.Connection,
    rater: Row,
    kind: TaskKind | None,
    now: datetime,
    excluding: Collection[str],
    *,
    config: ChecksConfig,
    rng: random.Random,
) -> Check | None:
    """Draw whether the rater's next task is a check, and which; None for an ordinary task."""
    if not config.gold_share and not config.repeat_share:
        return None
    drawn = rng.random()
    if drawn < config.gold_share:
        gold = free_task(connection, rater, kind, now, excluding, gold=True)
        return None if gold is None else (gold, None)
    if drawn - config.gold_share < config.repeat_share:
        earlier = sorted(repeatable_tasks(connection, rater.rater_id, kind))
        return _repeat(connection, rng.choice(earlier), rater, now) if earlier else None
    return None


def _repeat(connection: sa.Connection, earlier: str, rater: Row, now: datetime) -> Check | None:
    """Ask an earlier task again, its images in mirrored order."""
    task_id = add_repeat(connection, earlier, now)
    if not has_place(connection, task_id, rater.source, now):
        return None
    before = find_lease(connection, earlier, rater.rater_id)
    assert before is not None
    return task_id, [len(before.shown_order) - 1 - place for place in before.shown_order]
