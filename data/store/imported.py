"""Labels that were given elsewhere, on their way into the store by `FeedbackStore.import_labels`.

Each function works in its caller's transaction.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from typing import Any

import sqlalchemy as sa

from data.feedback import InputMode, NewTask, Source
from data.ids import uuid7
from data.kinds.kind import Answer
from data.store.people.reports import open_reports, withdraw_reports
from data.store.plan.planning import task_id_of
from data.store.queries import insert_rows
from data.store.revisions import SENT_WITH_AN_ANSWER, answer_values, recount_live
from data.store.tables import labels, leases, raters, task_images, tasks

LABELS_AT_ONCE = 500
"""Few enough for one statement's parameters, many enough for speed."""

Key = tuple[str, str]
"""Task id and rater id."""

RaterIdOf = Callable[[Source, str], str]
"""Function from a rater's source and name to the store's own id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedLabel:
    """An answer with its own rater and time."""

    submission_id: str
    """The same label always has the same one, so that importing it again adds nothing."""
    rater: str
    """The rater's name, unique within the source."""
    source: Source
    task: NewTask
    answer: Answer
    shown_order: tuple[int, ...]
    """The place on the screen, from 0, of each image of `task.image_ids`."""
    submitted_at: datetime | None = None
    """Time of the answer; None for the time of the import."""
    shown_at: datetime | None = None
    """Time when the task was shown; None for `submitted_at`."""
    time_on_task_ms: int | None = None
    active_ms: int | None = None
    lease_late: bool = False
    input_mode: InputMode | None = None
    session_id: str | None = None
    app_version: str | None = None
    guideline_version: str | None = None
    wording: str | None = None


@dataclass(frozen=True)
class Added:
    """Numbers of what was new in an import."""

    tasks: int
    labels: int
    raters: int


@dataclass(frozen=True, slots=True)
class _Placed:
    """A label with the ids of what it belongs to."""

    label: ImportedLabel
    task_id: str
    rater_id: str

    @property
    def key(self) -> Key:
        return self.task_id, self.rater_id


def new_labels(connection: sa.Connection, imported: Iterable[ImportedLabel]) -> list[ImportedLabel]:
    """Return those that are not in the store yet, each once."""
    rest = iter(imported)
    new: dict[str, ImportedLabel] = {}
    while chunk := {one.submission_id: one for one in islice(rest, LABELS_AT_ONCE)}:
        received = sa.select(labels.c.submission_id).where(labels.c.submission_id.in_(chunk))
        known = set(connection.scalars(received))
        new |= {key: one for key, one in chunk.items() if key not in known}
    return list(new.values())


def insert_raters(
    connection: sa.Connection,
    imported: Iterable[ImportedLabel],
    now: datetime,
    *,
    rater_id_of: RaterIdOf,
) -> int:
    """Insert the labels' raters that are not in the store yet; return how many."""
    known = set(connection.scalars(sa.select(raters.c.rater_id)))
    wanted = {rater_id_of(one.source, one.rater): one for one in imported}
    rows: list[dict[str, object]] = [
        {"rater_id": rater_id, "name": one.rater, "source": one.source, "joined_at": now}
        for rater_id, one in wanted.items()
        if rater_id not in known
    ]
    insert_rows(connection, raters, rows)
    return len(rows)


def insert_labels(
    connection: sa.Connection,
    new: Iterable[ImportedLabel],
    now: datetime,
    *,
    rater_id_of: RaterIdOf,
) -> None:
    """Insert labels that are not in the store yet; their tasks and raters must be.

    A further label of one rater about one task is a new revision, as an edit is.
    """
    rest = iter(new)
    while chunk := list(islice(rest, LABELS_AT_ONCE)):
        placed = [
            _Placed(one, task_id_of(one.task), rater_id_of(one.source, one.rater)) for one in chunk
        ]
        _insert_chunk(connection, placed, now)


def _insert_chunk(connection: sa.Connection, placed: Sequence[_Placed], now: datetime) -> None:
    task_ids = sorted({one.task_id for one in placed})
    # as for one answer: nobody else answers these tasks until this transaction ends
    connection.execute(
        sa.select(tasks.c.task_id)
        .where(tasks.c.task_id.in_(task_ids))
        .order_by(tasks.c.task_id)
        .with_for_update()
    )
    images = _images_of(connection, task_ids)
    columns = (labels.c.task_id, labels.c.rater_id, labels.c.revision, labels.c.is_live)
    given = sa.select(*columns).where(labels.c.task_id.in_(task_ids))
    earlier = connection.execute(given.order_by(labels.c.revision)).all()
    revisions: dict[Key, int] = {(row.task_id, row.rater_id): row.revision for row in earlier}
    live = {(row.task_id, row.rater_id) for row in earlier if row.is_live}
    last = {one.key: one for one in placed}
    rows = []
    for one in placed:
        revisions[one.key] = revisions.get(one.key, 0) + 1
        submitted_at = one.label.submitted_at or now
        row = _row(one.label, _in_order_of(one.label, images[one.task_id]), submitted_at)
        ids = {
            "label_id": uuid7(submitted_at, one.label.submission_id),
            "task_id": one.task_id,
            "rater_id": one.rater_id,
        }
        rows.append(row | ids | {"revision": revisions[one.key], "is_live": last[one.key] is one})
    for task, rater in sorted(live & set(last)):
        own = sa.update(labels).where(labels.c.task_id == task, labels.c.rater_id == rater)
        connection.execute(own.values(is_live=False))
        withdraw_reports(connection, task, rater)
    insert_rows(connection, labels, rows)
    for one, row in zip(placed, rows, strict=True):
        if row["is_live"]:
            open_reports(
                connection, row["label_id"], one.task_id, one.label.task.image_ids, one.label.answer
            )
    _record_showing(connection, task_ids, {(row["task_id"], row["rater_id"]): row for row in rows})
    recount_live(connection, task_ids)


def _images_of(connection: sa.Connection, task_ids: Sequence[str]) -> Mapping[str, list[str]]:
    query = (
        sa.select(task_images)
        .where(task_images.c.task_id.in_(task_ids))
        .order_by(task_images.c.task_id, task_images.c.position)
    )
    return {
        key: [row.image_id for row in group]
        for key, group in groupby(connection.execute(query), key=lambda row: row.task_id)
    }


def _in_order_of(label: ImportedLabel, image_ids: Sequence[str]) -> list[int]:
    """Return the label's shown order for the images in the order in which the store has them."""
    places = dict(zip(label.task.image_ids, label.shown_order, strict=True))
    return [places[image_id] for image_id in image_ids]


def _row(label: ImportedLabel, shown_order: list[int], submitted_at: datetime) -> dict[str, Any]:
    sent = {name: getattr(label, name) for name in SENT_WITH_AN_ANSWER}
    return (
        sent
        | answer_values(label.answer)
        | {
            "lease_late": label.lease_late,
            "wording": label.wording,
            "shown_order": shown_order,
            "shown_at": label.shown_at or submitted_at,
            "submitted_at": submitted_at,
        }
    )


def _record_showing(
    connection: sa.Connection, task_ids: Sequence[str], rows: Mapping[Key, dict[str, Any]]
) -> None:
    """Insert an answered lease for each label: the record of what was shown, for an undo."""
    query = sa.select(leases.c.task_id, leases.c.rater_id).where(leases.c.task_id.in_(task_ids))
    known = {(row.task_id, row.rater_id) for row in connection.execute(query)}
    kept = ("task_id", "rater_id", "shown_order", "shown_at", "wording")
    new = [{name: row[name] for name in kept} for key, row in rows.items() if key not in known]
    insert_rows(connection, leases, new)
