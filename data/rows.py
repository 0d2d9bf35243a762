"""What the feedback store says, as rows of the tables in `data/schema.py`: pure functions of one snapshot of the database."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from statistics import median
from typing import Any

import sqlalchemy as sa

from data.feedback import Answer, BinaryAnswer, TaskKind, agrees_with_gold, is_skip, parse_answer
from data.tables import labels, raters, task_images, tasks

TableRow = dict[str, object]

UNCHANGED = (
    "label_id",
    "submission_id",
    "revision",
    "task_id",
    "shown_at",
    "submitted_at",
    "time_on_task_ms",
    "lease_late",
    "input_mode",
    "app_version",
    "guideline_version",
    "session_id",
)
"""Columns of the store's labels that are exported as they are."""


@dataclass(frozen=True)
class LiveLabel:
    """A live label with what it is about."""

    row: sa.Row[Any]
    """Of `data.tables.labels`."""
    task: TableRow
    """Of `data.schema.TASKS`."""
    answer: Answer
    source: str
    rater_id: str
    """The public one, a salted hash."""

    @property
    def gold_correct(self) -> bool | None:
        """Whether the answer is right; None without a gold answer or for a skip."""
        gold_json = self.task["gold_json"]
        return None if gold_json is None else agrees_with_gold(self.answer, parse_answer(self.row.kind, str(gold_json)))


def task_rows(connection: sa.Connection) -> list[TableRow]:
    """Rows of TASKS, in the order of their ids."""
    images = connection.execute(sa.select(task_images).order_by(task_images.c.task_id, task_images.c.position))
    image_ids = {task_id: [row.image_id for row in group] for task_id, group in groupby(images, key=lambda row: row.task_id)}
    return [
        {
            "task_id": row.task_id,
            "kind": row.kind,
            "prompt_id": row.prompt_id,
            "image_ids": image_ids[row.task_id],
            "overlap": row.overlap,
            "priority": row.priority,
            "is_gold": row.gold_json is not None,
            "gold_json": row.gold_json,
            "created_at": row.created_at,
        }
        for row in connection.execute(sa.select(tasks).order_by(tasks.c.task_id))
    ]


def live_labels(connection: sa.Connection, known_tasks: Sequence[TableRow], public_id: Callable[[str], str]) -> Iterator[LiveLabel]:
    """The live labels in the order in which they were saved; `known_tasks` are the rows of `task_rows`."""
    by_id = {task["task_id"]: task for task in known_tasks}
    sources = {row.rater_id: (row.source, public_id(row.rater_id)) for row in connection.execute(sa.select(raters))}
    for row in connection.execute(sa.select(labels).where(labels.c.is_live).order_by(labels.c.sequence)):
        source, rater_id = sources[row.rater_id]
        yield LiveLabel(row, by_id[row.task_id], parse_answer(row.kind, row.answer_json), source, rater_id)


def label_rows(live: Sequence[LiveLabel], kind: TaskKind) -> list[TableRow]:
    """Rows of LABELS_BINARY or LABELS_RANKING."""
    return [_common_row(label) | _answer_row(label) for label in live if label.row.kind == kind]


def pair_rows(ranking_rows: Sequence[TableRow]) -> list[TableRow]:
    """Rows of LABELS_PAIRS from rows of LABELS_RANKING: every two images that were both given a rank."""
    return [row for ranking in ranking_rows for row in _pairs_of(ranking)]


def rater_rows(connection: sa.Connection, live: Sequence[LiveLabel], public_id: Callable[[str], str]) -> list[TableRow]:
    """Rows of RATERS, by when they joined."""
    by_rater: dict[str, list[LiveLabel]] = {}
    for label in live:
        by_rater.setdefault(label.row.rater_id, []).append(label)
    joined = connection.execute(sa.select(raters).order_by(raters.c.joined_at, raters.c.rater_id))
    return [
        {"rater_id": public_id(row.rater_id), "source": row.source, "joined_at": row.joined_at} | _tally(by_rater.get(row.rater_id, []))
        for row in joined
    ]


def log_rows(connection: sa.Connection, first: int, last: int, public_id: Callable[[str], str]) -> list[TableRow]:
    """Rows of LABELS_LOG: every revision whose sequence number is in [first, last]."""
    same = ("sequence", "kind", "answer_json", "shown_order", *UNCHANGED)
    query = sa.select(labels).where(labels.c.sequence.between(first, last)).order_by(labels.c.sequence)
    return [{name: getattr(row, name) for name in same} | {"rater_id": public_id(row.rater_id)} for row in connection.execute(query)]


def _common_row(label: LiveLabel) -> TableRow:
    return {name: getattr(label.row, name) for name in UNCHANGED} | {
        "prompt_id": label.task["prompt_id"],
        "rater_id": label.rater_id,
        "skip_reason": label.answer.reason,
        "comment": label.answer.comment,
        "source": label.source,
        "is_gold": label.task["is_gold"],
        "gold_correct": label.gold_correct,
    }


def _answer_row(label: LiveLabel) -> TableRow:
    image_ids = label.task["image_ids"]
    assert isinstance(image_ids, list)
    if isinstance(label.answer, BinaryAnswer):
        return {"image_id": image_ids[0], "label": label.answer.verdict}
    ranks = [label.answer.ranks[image_id] for image_id in image_ids]
    given = [rank for rank in ranks if rank is not None]
    return {
        "image_ids": image_ids,
        "shown_order": label.row.shown_order,
        "ranks": ranks,
        "n_images": len(image_ids),
        "n_tie_groups": sum(given.count(rank) > 1 for rank in set(given)),
    }


def _pairs_of(ranking: TableRow) -> list[TableRow]:
    image_ids, ranks = ranking["image_ids"], ranking["ranks"]
    assert isinstance(image_ids, list)
    assert isinstance(ranks, list)
    judged = [(image_id, rank) for image_id, rank in zip(image_ids, ranks, strict=True) if rank is not None]
    pairs = list(combinations(judged, 2))
    return [
        {
            "prompt_id": ranking["prompt_id"],
            "image_id_0": image_0,
            "image_id_1": image_1,
            "label_0": 0.5 if rank_0 == rank_1 else float(rank_0 < rank_1),
            "rater_id": ranking["rater_id"],
            "ranking_label_id": ranking["label_id"],
            "weight": 1 / len(pairs),
        }
        for (image_0, rank_0), (image_1, rank_1) in pairs
    ]


def _tally(mine: Sequence[LiveLabel]) -> TableRow:
    checked = [label.gold_correct for label in mine if label.gold_correct is not None]
    times = [label.row.time_on_task_ms for label in mine if label.row.time_on_task_ms is not None]
    return {
        "n": len(mine),
        "n_skipped": sum(is_skip(label.answer) for label in mine),
        "gold_n": len(checked),
        "gold_accuracy": sum(checked) / len(checked) if checked else None,
        "median_ms": float(median(times)) if times else None,
    }
