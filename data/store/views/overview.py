"""Views of the store for the app's pages: labels, counts by category and hour, answers to gold."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from data.comparisons import WITHOUT_PROMPT
from data.feedback import Source, Task
from data.kinds.registry import AnyAnswer, TaskKind, agrees_with_gold, parse_answer
from data.store.feedback_store import FeedbackStore
from data.store.leases import IN_REACH, LOOK_BACK, wording_text
from data.store.queries import NO_CHECK, load_tasks
from data.store.tables import labels, prompts, raters, tasks
from data.store.views.progress import finished_labels, wanted_labels

AnswerGroup = Literal["good", "bad", "skipped", "reported", "commented"]
"""Group of answers: `skipped` answers say nothing about quality and report nothing; `reported`
answers report an image."""


@dataclass(frozen=True)
class GivenLabel:
    """A live label with its task and its rater's name."""

    task: Task
    shown_order: tuple[int, ...]
    """Position on the screen, from 0, of each image of `task.image_ids`."""
    answer: AnyAnswer
    revision: int
    submitted_at: datetime
    rater: str
    """The rater's name."""
    source: Source
    sequence: int
    """Sequence number; later labels have higher numbers."""
    wording: str | None = None
    """Wording of a comparison's question as the rater saw it, in Markdown."""


@dataclass(frozen=True)
class LabelCount:
    """Progress of the labeling of one category and kind of task."""

    category: str
    kind: TaskKind
    done: int
    """Live labels by people, per task at most its overlap."""
    total: int


MOST_BY_HOUR = 200_000
"""Number of latest labels that are counted by the hour, more than one day has."""

FEWEST_TIMES = 20
"""Fewest recent labels of a kind for their mean active time."""

_GROUPS: dict[AnswerGroup, sa.ColumnElement[bool]] = {
    "good": labels.c.outcome == "good",
    "bad": labels.c.outcome == "bad",
    "skipped": labels.c.outcome == "skip",
    "reported": labels.c.outcome == "unsafe",
    "commented": labels.c.has_comment,
}
_LIVE = (
    sa.select(labels, raters.c.name, raters.c.source)
    .join(raters, raters.c.rater_id == labels.c.rater_id)
    .where(labels.c.is_live)
    .order_by(labels.c.sequence.desc())
)


def latest_labels(
    store: FeedbackStore,
    *,
    rater_id: str | None = None,
    source: Source | None = None,
    among: Iterable[sa.ColumnElement[bool]] = (),
    limit: int,
) -> list[GivenLabel]:
    """Return live labels (of one rater, of one source, or all), newest first.

    `among` takes conditions from `matching`.
    """
    query = _LIVE.where(*among).limit(limit)
    if rater_id is not None:
        query = query.where(labels.c.rater_id == rater_id)
    if source is not None:
        # selected by id, which has an index, to find few labels among many quickly
        of_source = sa.select(raters.c.rater_id).where(raters.c.source == source)
        query = query.where(labels.c.rater_id.in_(of_source))
    return _labels(store, query)


def labels_of_tasks(store: FeedbackStore, task_ids: Collection[str]) -> list[GivenLabel]:
    """Return all live labels of the tasks, newest first."""
    return _labels(store, _LIVE.where(labels.c.task_id.in_(task_ids)))


def _labels(store: FeedbackStore, query: sa.Select[Any]) -> list[GivenLabel]:
    with store.database.read() as connection:
        rows = connection.execute(query).all()
        asked = load_tasks(connection, {row.task_id for row in rows})
        versions = {row.wording for row in rows}
        words = {version: wording_text(connection, version) for version in versions}
    return [
        GivenLabel(
            asked[row.task_id],
            tuple(row.shown_order),
            parse_answer(row.kind, row.answer_json),
            row.revision,
            row.submitted_at,
            rater=row.name,
            source=row.source,
            sequence=row.sequence,
            wording=words[row.wording],
        )
        for row in rows
    ]


def matching(
    before: int | None,
    words: str,
    kind: TaskKind | None,
    answer: AnswerGroup | None,
    until: datetime | None = None,
) -> list[sa.ColumnElement[bool]]:
    """Return conditions on labels; None, and empty `words`, add no condition.

    Args:
        before: only labels that were given before the label with this sequence number.
        words: all words occur in the prompt, in any case, also as parts of words. A prompt that is
            hidden from raters is not searched.
        kind: kind of the task.
        answer: group of the answer.
        until: only labels that were given until this time.
    """
    asked = words.split()
    return [
        *([] if before is None else [labels.c.sequence < before]),
        *([] if kind is None else [labels.c.kind == kind]),
        *([] if answer is None else [_GROUPS[answer]]),
        *([_asked(asked)] if asked else []),
        *([] if until is None else [labels.c.submitted_at <= until]),
    ]


def _asked(words: list[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the label's task shows all words."""
    of_prompt = sa.select(prompts.c.prompt_id).where(*map(_is_in_prompt, words))
    is_shown = sa.or_(tasks.c.axis.is_(None), tasks.c.axis != WITHOUT_PROMPT)
    of_label = sa.exists().where(
        tasks.c.task_id == labels.c.task_id, tasks.c.prompt_id.in_(of_prompt), is_shown
    )
    # first, once: without it words that occur nowhere are looked for in every label
    return sa.and_(of_prompt.exists(), of_label)


def _is_in_prompt(word: str) -> sa.ColumnElement[bool]:
    # SQLite ignores the case of ASCII letters only
    spellings = dict.fromkeys((word, word.lower(), word.upper(), word.capitalize()))
    return sa.or_(*(prompts.c.prompt.icontains(one, autoescape=True) for one in spellings))


def counts_by_category(store: FeedbackStore, categories: Mapping[str, str]) -> list[LabelCount]:
    """Count the labels done and wanted for each category and kind, without checks.

    `categories` has the category of each prompt id; a prompt without one is `other`.
    """
    done, total = sa.func.sum(finished_labels("human")), sa.func.sum(wanted_labels("human"))
    query = (
        sa.select(tasks.c.prompt_id, tasks.c.kind, done, total)
        .where(NO_CHECK)
        .group_by(tasks.c.prompt_id, tasks.c.kind)
    )
    sums: dict[tuple[str, TaskKind], tuple[int, int]] = {}
    with store.database.read() as connection:
        for prompt_id, kind, n_done, n_total in connection.execute(query):
            key = categories.get(prompt_id, "other"), kind
            before = sums.get(key, (0, 0))
            sums[key] = before[0] + int(n_done), before[1] + int(n_total)
    return [LabelCount(*key, *sums[key]) for key in sorted(sums)]


def labels_by_hour(store: FeedbackStore, since: datetime) -> dict[datetime, int]:
    """Count people's answers by clock hour since `since`; hours without answers are missing."""
    second = sa.extract("epoch", labels.c.submitted_at)  # PostgreSQL: with a fraction
    is_since = labels.c.submitted_at >= since
    rows = _of_people(store, second - second % 3600, MOST_BY_HOUR, is_since)
    return {datetime.fromtimestamp(int(start), UTC): n for start, n, _ in rows}


def active_times(store: FeedbackStore) -> dict[TaskKind, float]:
    """Return the mean active time of people's latest labels in ms, for each kind with enough."""
    rows = _of_people(store, labels.c.kind, LOOK_BACK, IN_REACH, labels.c.active_ms.is_not(None))
    return {kind: float(mean) for kind, n, mean in rows if n >= FEWEST_TIMES}


def _of_people(
    store: FeedbackStore, group: sa.ColumnElement[Any], most: int, *among: sa.ColumnElement[bool]
) -> Sequence[Any]:
    """Return the count and the mean active time of the latest labels by people, by group."""
    # without a limit, SQLite would begin with the raters and read all their labels
    latest = (
        sa.select(group.label("group"), labels.c.active_ms, labels.c.rater_id)
        .where(labels.c.is_live, *among)
        .order_by(labels.c.submitted_at.desc())
        .limit(most)
        .subquery()
    )
    query = (
        sa.select(latest.c.group, sa.func.count(), sa.func.avg(latest.c.active_ms))
        .join_from(latest, raters, raters.c.rater_id == latest.c.rater_id)
        .where(raters.c.source == "human")
        .group_by(latest.c.group)
    )
    with store.database.read() as connection:
        return connection.execute(query).all()


def gold_record(store: FeedbackStore, rater_id: str) -> list[bool]:
    """Return for each answer of the rater to a gold task whether it is right.

    Skips, and answers from before the rater was last resumed, are omitted.
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
