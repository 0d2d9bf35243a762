"""Views of the store for the app's pages: latest labels, counts by prompt, gold records."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from data.feedback import Answer, Task, TaskKind, agrees_with_gold, parse_answer
from data.store.comparing import wording_texts
from data.store.conditions import NO_CHECK
from data.store.feedback_store import FeedbackStore
from data.store.progress import finished_labels, wanted_labels
from data.store.queries import Row, load_task
from data.store.tables import labels, prompts, raters, tasks


@dataclass(frozen=True)
class GivenLabel:
    """A live label with its task and its rater's name."""

    task: Task
    shown_order: tuple[int, ...]
    """The place on the screen, from 0, of each image of `task.image_ids`."""
    answer: Answer
    revision: int
    submitted_at: datetime
    rater: str
    """The rater's name."""
    wording: str | None = None
    """The words of a comparison's axis, in Markdown, as they were shown."""


@dataclass(frozen=True)
class PromptCount:
    """Progress of the labeling of one prompt."""

    prompt_id: str
    kind: TaskKind
    done: int
    """Live labels by people, at most as many per task as are wanted."""
    total: int


def latest_labels(
    store: FeedbackStore, *, rater_id: str | None = None, limit: int
) -> list[GivenLabel]:
    """Return the live labels of one rater, or of all, newest first."""
    query = (
        sa.select(labels, raters.c.name)
        .join(raters, raters.c.rater_id == labels.c.rater_id)
        .where(labels.c.is_live)
    )
    if rater_id is not None:
        query = query.where(labels.c.rater_id == rater_id)
    with store.database.read() as connection:
        rows = connection.execute(query.order_by(labels.c.sequence.desc()).limit(limit)).all()
        words = wording_texts(connection, [row.wording for row in rows])
        return [
            _given(row, load_task(connection, row.task_id), words.get(row.wording)) for row in rows
        ]


def counts_by_prompt(store: FeedbackStore) -> list[PromptCount]:
    """Count the labels done and wanted for each prompt and kind; without checks."""
    done, total = sa.func.sum(finished_labels("human")), sa.func.sum(wanted_labels("human"))
    query = (
        sa.select(tasks.c.prompt_id, tasks.c.kind, done.label("done"), total.label("total"))
        .join(prompts, prompts.c.prompt_id == tasks.c.prompt_id)
        .where(NO_CHECK)
        .group_by(tasks.c.prompt_id, tasks.c.kind)
        .order_by(tasks.c.prompt_id, tasks.c.kind)
    )
    with store.database.read() as connection:
        return [
            PromptCount(row.prompt_id, row.kind, int(row.done), int(row.total))
            for row in connection.execute(query)
        ]


def gold_record(store: FeedbackStore, rater_id: str) -> list[bool]:
    """Return for each answer of the rater to a gold task whether it is right.

    Skips are omitted, and so are answers from before the rater was last let go on after a pause.
    """
    query = (
        sa.select(labels.c.kind, labels.c.answer_json, tasks.c.gold_json)
        .join(tasks, tasks.c.task_id == labels.c.task_id)
        .join(raters, raters.c.rater_id == labels.c.rater_id)
        .where(labels.c.rater_id == rater_id, labels.c.is_live, tasks.c.gold_json.is_not(None))
        .where(sa.or_(raters.c.resumed_at.is_(None), labels.c.submitted_at > raters.c.resumed_at))
    )
    with store.database.read() as connection:
        rows = connection.execute(query).all()
    pairs = [(parse_answer(r.kind, r.answer_json), parse_answer(r.kind, r.gold_json)) for r in rows]
    checked = [agrees_with_gold(answer, gold) for answer, gold in pairs]
    return [right for right in checked if right is not None]


def _given(row: Row, task: Task, wording: str | None) -> GivenLabel:
    return GivenLabel(
        task,
        tuple(row.shown_order),
        parse_answer(row.kind, row.answer_json),
        row.revision,
        row.submitted_at,
        rater=row.name,
        wording=wording,
    )
