"""Reports of images that nobody should be shown, and what admins decide about them.

A live label that reports an image opens a report, which takes the image and every task with it out
of circulation. The report is withdrawn when its rater undoes or changes the answer, and closed when
an admin decides. An image is in circulation again once no report of it is open and it was not
removed.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from data.feedback import (
    Answer,
    Decision,
    NotFound,
    agrees_with_gold,
    parse_answer,
    reported_images,
)
from data.store.audit import record
from data.store.conditions import OUT_OF_CIRCULATION, WITHHELD_IMAGES, WITHHELD_TASKS
from data.store.database import Database
from data.store.queries import Row, find_row, insert_rows
from data.store.tables import labels, prompts, raters, reports, task_images, tasks


@dataclass(frozen=True)
class Report:
    """One rater's report of an image."""

    rater: str
    """The rater's name."""
    reason: str | None
    comment: str | None
    submitted_at: datetime


@dataclass(frozen=True)
class ReportedImage:
    """An image that is out of circulation."""

    image_id: str
    prompt: str
    removed: bool
    """Whether an admin removed it; otherwise it waits for an admin's decision."""
    reports: Sequence[Report]
    """The reports that keep it out, oldest first."""


class Reports:
    """Images that are out of circulation; `FeedbackStore.reports` is one.

    `FeedbackStore.submit` and `undo` open and withdraw reports.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def withheld_tasks(self, task_ids: Collection[str]) -> list[str]:
        """Select the tasks that have an image which is out of circulation."""
        with self._database.read() as connection:
            return withheld_tasks(connection, task_ids)

    def withheld_images(self, image_ids: Collection[str]) -> set[str]:
        """Select the images that are out of circulation."""
        with self._database.read() as connection:
            return set(connection.scalars(WITHHELD_IMAGES.where(reports.c.image_id.in_(image_ids))))

    def images(self) -> list[ReportedImage]:
        """Return all images that are out of circulation, in the order of their first reports."""
        query = (
            sa.select(reports.c.image_id, reports.c.state, prompts.c.prompt, raters.c.name)
            .add_columns(labels.c.kind, labels.c.answer_json, labels.c.submitted_at)
            .add_columns(labels.c.sequence)
            .join(labels, labels.c.label_id == reports.c.label_id)
            .join(raters, raters.c.rater_id == labels.c.rater_id)
            .join(tasks, tasks.c.task_id == labels.c.task_id)
            .join(prompts, prompts.c.prompt_id == tasks.c.prompt_id)
            .where(OUT_OF_CIRCULATION)
        )
        found: dict[str, list[Row]] = {}
        with self._database.read() as connection:
            # sorted here: SQLite would go through all labels in order to find the few reports
            for row in sorted(connection.execute(query), key=lambda row: row.sequence):
                found.setdefault(row.image_id, []).append(row)
        return [
            ReportedImage(
                image_id,
                rows[0].prompt,
                any(row.state == "removed" for row in rows),
                [_report(row) for row in rows],
            )
            for image_id, rows in found.items()
        ]

    def count(self) -> tuple[int, int]:
        """Count the images that wait for a decision, and those that are removed."""
        removed = sa.select(reports.c.image_id).where(reports.c.state == "removed")
        waiting = sa.select(reports.c.image_id).where(
            reports.c.state == "open", reports.c.image_id.not_in(removed)
        )
        with self._database.read() as connection:
            counts = [
                connection.scalar(sa.select(sa.func.count()).select_from(ids.distinct().subquery()))
                for ids in (waiting, removed)
            ]
        return counts[0] or 0, counts[1] or 0

    def decide(self, image_id: str, decision: Decision, admin_id: str) -> None:
        """Put an image back into circulation (`kept`) or keep it out for good (`removed`).

        A kept image stays in circulation until somebody reports it again.

        Raises:
            NotFound: the image is not out of circulation, or was removed before.
        """
        undecided = OUT_OF_CIRCULATION if decision == "kept" else reports.c.state == "open"
        change = sa.update(reports).where(reports.c.image_id == image_id, undecided)
        with self._database.write() as connection:
            now = self._clock()
            was_removed = sa.exists().where(
                reports.c.image_id == image_id, reports.c.state == "removed"
            )
            before = "removed" if connection.scalar(sa.select(was_removed)) else "open"
            values = {"state": decision, "decided_by": admin_id, "decided_at": now}
            if connection.execute(change.values(values)).rowcount == 0:
                raise NotFound(f"image {image_id}: no report of it is open; look at the list again")
            record(
                connection,
                "decide_image",
                now,
                admin_id,
                subject=image_id,
                before={"state": before},
                after={"state": decision},
            )


def withheld_tasks(connection: sa.Connection, task_ids: Collection[str]) -> list[str]:
    """Select the tasks that have an image which is out of circulation."""
    among = WITHHELD_TASKS.where(task_images.c.task_id.in_(task_ids))
    return list(connection.scalars(among.distinct()))


def open_reports(
    connection: sa.Connection, label_id: str, task_id: str, image_ids: Sequence[str], answer: Answer
) -> None:
    """Take the images that a new live label reports out of circulation.

    The right answer to hidden gold says nothing new and reports nothing.
    """
    reported = reported_images(answer, image_ids)
    if reported and not _is_gold_for(connection, task_id, answer):
        rows: list[dict[str, object]] = [
            {"label_id": label_id, "image_id": image_id, "state": "open"}
            for image_id in sorted(reported)
        ]
        insert_rows(connection, reports, rows)


def withdraw_reports(connection: sa.Connection, task_id: str, rater_id: str) -> None:
    """Withdraw the open reports of the rater's labels of the task that are no longer live."""
    retired = sa.select(labels.c.label_id).where(
        labels.c.task_id == task_id, labels.c.rater_id == rater_id, ~labels.c.is_live
    )
    mine = sa.update(reports).where(reports.c.label_id.in_(retired), reports.c.state == "open")
    connection.execute(mine.values(state="withdrawn"))


def _is_gold_for(connection: sa.Connection, task_id: str, answer: Answer) -> bool:
    row = find_row(connection, tasks, task_id)
    assert row is not None
    if row.gold_source is None:
        return False
    return agrees_with_gold(answer, parse_answer(answer.kind, row.gold_json)) is True


def _report(row: Row) -> Report:
    answer = parse_answer(row.kind, row.answer_json)
    return Report(row.name, answer.reason, answer.comment, row.submitted_at)
