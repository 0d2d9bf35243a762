"""The steps of `FeedbackStore.import_labels`. Each function works in its caller's transaction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from data.feedback import NewTask, Source
from data.ids import uuid7
from data.kinds.kind import Answer
from data.store.people.reports import open_reports
from data.store.plan.planning import task_id_of
from data.store.queries import insert_rows, load_tasks
from data.store.revisions import answer_values, recount_live, retire_live
from data.store.tables import labels, leases, raters

LABELS_AT_ONCE = 500
"""Labels in one statement: few enough for its limit of parameters, many enough for speed."""

RaterIdOf = Callable[[Source, str], str]
"""Function from a rater's source and name to the store's own id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedLabel:
    """An answer with its own rater and time."""

    submission_id: str
    """Id of the answer; equal for each import of the same label, so that a second import adds
    nothing."""
    rater: str
    """The rater's name, unique within the source."""
    source: Source
    task: NewTask
    answer: Answer
    shown_order: tuple[int, ...]
    """Position on the screen, from 0, of each image of `task.image_ids`."""
    submitted_at: datetime | None = None
    """Time of the answer; None for the time of the import."""
    time_on_task_ms: int | None = None
    active_ms: int | None = None
    app_version: str | None = None


@dataclass(frozen=True)
class Added:
    """Numbers of new rows that an import added."""

    tasks: int
    labels: int
    raters: int


def insert_labels(
    connection: sa.Connection,
    imported: Iterable[ImportedLabel],
    now: datetime,
    *,
    rater_id_of: RaterIdOf,
) -> tuple[int, int]:
    """Insert the labels whose submission ids are new, and their raters; their tasks must be there.

    A further label of one rater about one task is a new revision, as an edit is.

    Returns:
        Numbers of new labels and of new raters.
    """
    rest = iter(imported)
    n_labels = n_raters = 0
    while chunk := {one.submission_id: one for one in islice(rest, LABELS_AT_ONCE)}:
        received = sa.select(labels.c.submission_id).where(labels.c.submission_id.in_(chunk))
        known = set(connection.scalars(received))
        new = [one for key, one in chunk.items() if key not in known]
        keys = [(task_id_of(one.task), rater_id_of(one.source, one.rater)) for one in new]
        by_rater = {rater_id: one for (_, rater_id), one in zip(keys, new, strict=True)}
        n_raters += _insert_raters(connection, by_rater, now)
        _insert_chunk(connection, new, keys, now)
        n_labels += len(new)
    return n_labels, n_raters


def _insert_raters(
    connection: sa.Connection, by_rater: dict[str, ImportedLabel], now: datetime
) -> int:
    among = sa.select(raters.c.rater_id).where(raters.c.rater_id.in_(by_rater))
    known = set(connection.scalars(among))
    rows = [
        {"rater_id": rater_id, "name": one.rater, "source": one.source, "joined_at": now}
        for rater_id, one in by_rater.items()
        if rater_id not in known
    ]
    insert_rows(connection, raters, rows)
    return len(rows)


def _insert_chunk(
    connection: sa.Connection,
    new: Sequence[ImportedLabel],
    keys: Sequence[tuple[str, str]],
    now: datetime,
) -> None:
    """Insert labels, each with its key of task and rater id."""
    task_ids = sorted({task_id for task_id, _ in keys})
    # as for a single answer: a lock on the tasks until this transaction ends
    asked = load_tasks(connection, task_ids, lock=True)
    columns = (labels.c.task_id, labels.c.rater_id, labels.c.revision, labels.c.is_live)
    given = sa.select(*columns).where(labels.c.task_id.in_(task_ids)).order_by(labels.c.revision)
    earlier = connection.execute(given).all()
    revisions = {(row.task_id, row.rater_id): row.revision for row in earlier}
    rows = []
    for one, key in zip(new, keys, strict=True):
        revisions[key] = revisions.get(key, 0) + 1
        rows.append(_row(one, key, asked[key[0]].image_ids, now) | {"revision": revisions[key]})
    last = dict(zip(keys, rows, strict=True))
    for row in last.values():
        row["is_live"] = True
    for task_id, rater_id, _, is_live in earlier:
        if is_live and (task_id, rater_id) in last:
            retire_live(connection, task_id, rater_id)
    insert_rows(connection, labels, rows)
    for one, (task_id, _), row in zip(new, keys, rows, strict=True):
        if row["is_live"]:
            open_reports(connection, row["label_id"], asked[task_id], one.answer)
    # An answered lease for each label records what was shown, for an undo.
    leased = sa.select(leases.c.task_id, leases.c.rater_id).where(leases.c.task_id.in_(task_ids))
    known = set(map(tuple, connection.execute(leased)))
    kept = ("task_id", "rater_id", "shown_order", "shown_at")
    shown = ({name: row[name] for name in kept} for key, row in last.items() if key not in known)
    insert_rows(connection, leases, shown)
    recount_live(connection, task_ids)


def _row(
    label: ImportedLabel, key: tuple[str, str], image_ids: Sequence[str], now: datetime
) -> dict[str, Any]:
    """Return the columns of a label except its revision, for images in the store's order."""
    places = dict(zip(label.task.image_ids, label.shown_order, strict=True))
    submitted_at = label.submitted_at or now
    return {
        **answer_values(label.answer),
        "label_id": uuid7(submitted_at, label.submission_id),
        "task_id": key[0],
        "rater_id": key[1],
        "submission_id": label.submission_id,
        "time_on_task_ms": label.time_on_task_ms,
        "active_ms": label.active_ms,
        "app_version": label.app_version,
        "lease_late": False,
        "is_live": False,
        "shown_order": [places[image_id] for image_id in image_ids],
        "shown_at": submitted_at,
        "submitted_at": submitted_at,
    }
