"""The feedback store's content as tables of `data/schema.py`, from one database snapshot."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import combinations, groupby
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from data.kinds.kind import Columns, TaskFacts
from data.kinds.registry import KINDS, TaskKind, agrees_with_gold, parse_answer
from data.kinds.verdict import Verdict
from data.regions import LABELS_REGIONS
from data.schema import LABELS_LOG, LABELS_PAIRS, ROW_GROUP_ROWS, TASKS
from data.store.queries import WITHHELD_IMAGES
from data.store.tables import labels, raters, task_images, tasks

TableRow = dict[str, object]
_LEFT_OUT = sa.select(raters.c.rater_id).where(raters.c.status == "left_out")


@dataclass(frozen=True)
class RaterFacts:
    """A rater as the store knows them."""

    rater_id: str
    """The store's own id, which is never exported."""
    public_id: str
    """The salted hash under which the rater is exported."""
    name: str
    source: str
    joined_at: datetime
    status: str
    role: str = "rater"


def task_table(connection: sa.Connection) -> pa.Table:
    """Return TASKS in the order of their ids."""
    in_order = sa.select(task_images).order_by(task_images.c.task_id, task_images.c.position)
    by_task = groupby(connection.execute(in_order), key=lambda row: row.task_id)
    image_ids = {task_id: [row.image_id for row in group] for task_id, group in by_task}
    same = [name for name in TASKS.names if name in tasks.c]
    query = sa.select(*(tasks.c[name] for name in same)).order_by(tasks.c.task_id)
    columns = _columns(same, connection.execute(query).all())
    columns["image_ids"] = [image_ids[task_id] for task_id in columns["task_id"]]
    columns["is_gold"] = [gold is not None for gold in columns["gold_json"]]
    withheld = set(connection.scalars(WITHHELD_IMAGES))
    columns["withheld_image_ids"] = [
        [image_id for image_id in shown if image_id in withheld] for shown in columns["image_ids"]
    ]
    return pa.Table.from_pydict(columns, schema=TASKS)


def task_facts(table: pa.Table) -> dict[str, TaskFacts]:
    """Return the facts of TASKS by task id."""
    names = ("task_id", "kind", "prompt_id", "image_ids", "gold_json", "axis", "models")
    columns = (table[name].to_pylist() for name in names)
    return {
        task_id: TaskFacts(
            prompt_id,
            image_ids,
            None if gold is None else parse_answer(kind, gold),
            *of_comparison,
        )
        for task_id, kind, prompt_id, image_ids, gold, *of_comparison in zip(*columns, strict=True)
    }


def rater_facts(
    connection: sa.Connection, public_id: Callable[[str], str]
) -> dict[str, RaterFacts]:
    """Return all raters by the store's own id, in order of joining."""
    names = [field.name for field in fields(RaterFacts) if field.name in raters.c]
    query = sa.select(*(raters.c[name] for name in names))
    joined = connection.execute(query.order_by(raters.c.joined_at, raters.c.rater_id)).mappings()
    return {
        row["rater_id"]: RaterFacts(public_id=public_id(row["rater_id"]), **row) for row in joined
    }


def label_table(
    connection: sa.Connection,
    kind: TaskKind,
    known_tasks: Mapping[str, TaskFacts],
    known_raters: Mapping[str, RaterFacts],
) -> pa.Table:
    """Return the labels of a kind as one table, which may be empty."""
    batches = label_batches(connection, kind, known_tasks, known_raters)
    return pa.concat_tables([KINDS[kind].schema.empty_table(), *batches])


def label_batches(
    connection: sa.Connection,
    kind: TaskKind,
    known_tasks: Mapping[str, TaskFacts],
    known_raters: Mapping[str, RaterFacts],
) -> Iterator[pa.Table]:
    """Yield the table of a kind's labels, `ROW_GROUP_ROWS` rows at a time.

    The rows are the live labels in the order of saving, without raters who are left out.
    """
    names = [*LABELS_LOG.names, "wording"]
    for rows in _live_rows(connection, kind, names):
        columns = _columns(names, rows)
        texts = columns.pop("answer_json")
        asked = [known_tasks[task_id] for task_id in columns["task_id"]]
        by = [known_raters[rater_id] for rater_id in columns["rater_id"]]
        answers = [json.loads(text) for text in texts]
        columns |= {
            "prompt_id": [task.prompt_id for task in asked],
            "rater_id": [rater.public_id for rater in by],
            "source": [rater.source for rater in by],
            "skip_reason": [answer.get("reason") for answer in answers],
            "comment": [answer.get("comment") for answer in answers],
            "is_gold": [task.gold is not None for task in asked],
            "gold_correct": [
                None if task.gold is None else agrees_with_gold(parse_answer(kind, text), task.gold)
                for text, task in zip(texts, asked, strict=True)
            ],
        }
        columns |= KINDS[kind].columns(answers, asked)
        yield pa.Table.from_pydict(columns, schema=KINDS[kind].schema)


def region_batches(
    connection: sa.Connection,
    known_tasks: Mapping[str, TaskFacts],
    known_raters: Mapping[str, RaterFacts],
) -> Iterator[pa.Table]:
    """Yield LABELS_REGIONS: the marks of the verdicts that `label_batches` yields, in its order."""
    names = ["answer_json", *(name for name in LABELS_REGIONS.names if name in labels.c)]
    has_marks = labels.c.answer_json.contains('"marks":')  # in a text, the quotes are escaped
    for rows in _live_rows(connection, Verdict.name, names, has_marks):
        marks = [
            mark
            for row in rows
            for mark in _marks_of(row, known_tasks[row.task_id], known_raters[row.rater_id])
        ]
        yield pa.Table.from_pylist(marks, schema=LABELS_REGIONS)


def _live_rows(
    connection: sa.Connection, kind: TaskKind, names: Sequence[str], *where: sa.ColumnElement[bool]
) -> Iterator[Sequence[sa.Row[Any]]]:
    live = (
        sa.select(*(labels.c[name] for name in names))
        .where(labels.c.is_live, labels.c.kind == kind, labels.c.rater_id.not_in(_LEFT_OUT), *where)
        .order_by(labels.c.sequence)
    )
    return connection.execute(live, execution_options={"yield_per": ROW_GROUP_ROWS}).partitions()


def _marks_of(row: sa.Row[Any], task: TaskFacts, rater: RaterFacts) -> list[TableRow]:
    answer = json.loads(row.answer_json)
    about = {
        **row._asdict(),
        "prompt_id": task.prompt_id,
        "image_id": task.image_ids[0],
        "rater_id": rater.public_id,
        "source": rater.source,
        "label": answer["verdict"],
    }
    numbered = list(enumerate(answer["marks"], start=1)) or [(0, {"kind": "none"})]
    return [about | mark | {"mark_no": number} for number, mark in numbered]


def pair_batches(rankings: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield LABELS_PAIRS from LABELS_RANKING: every pair of images with a rank."""
    for table in rankings:
        pairs = [pair for ranking in table.to_pylist() for pair in _pairs_of(ranking)]
        yield pa.Table.from_pylist(pairs, schema=LABELS_PAIRS)


def log_table(
    connection: sa.Connection, first: int, last: int, public_id: Callable[[str], str]
) -> pa.Table:
    """Return LABELS_LOG: every revision whose sequence number is in [first, last]."""
    query = (
        sa.select(*(labels.c[name] for name in LABELS_LOG.names))
        .where(labels.c.sequence.between(first, last))
        .order_by(labels.c.sequence)
    )
    columns = _columns(LABELS_LOG.names, connection.execute(query).all())
    columns["rater_id"] = [public_id(rater_id) for rater_id in columns["rater_id"]]
    return pa.Table.from_pydict(columns, schema=LABELS_LOG)


def _columns(names: Sequence[str], rows: Sequence[sa.Row[Any]]) -> Columns:
    if not rows:
        return dict.fromkeys(names, ())
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _pairs_of(ranking: dict[str, Any]) -> list[TableRow]:
    images = zip(ranking["image_ids"], ranking["ranks"], ranking["shown_order"], strict=True)
    pairs = list(combinations([image for image in images if image[1] is not None], 2))
    return [
        {
            "prompt_id": ranking["prompt_id"],
            "image_id_0": image_0,
            "image_id_1": image_1,
            "label_0": 0.5 if rank_0 == rank_1 else float(rank_0 < rank_1),
            "rater_id": ranking["rater_id"],
            "ranking_label_id": ranking["label_id"],
            "weight": 1 / len(pairs),
            "task_id": ranking["task_id"],
            "source": ranking["source"],
            "left_shown": int(place_0 > place_1),
            "are_different": rank_0 != rank_1,
        }
        for (image_0, rank_0, place_0), (image_1, rank_1, place_1) in pairs
    ]
