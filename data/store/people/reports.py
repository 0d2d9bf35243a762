"""Reports of unsafe images, and the admins' decisions.

A live label that reports an image opens a report, which takes the image and all its tasks out of
circulation. The report is withdrawn when its rater undoes or changes the answer, and closed when an
admin decides. An image comes back into circulation when it has no open report and was not removed.
No rater can empty a campaign: while a rater has `MOST_OPEN` open reports, further reports by this
rater only wait for an admin.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from data.feedback import Decision, NotFound, Task
from data.kinds.kind import Answer
from data.kinds.registry import agrees_with_gold, parse_answer, reported_images
from data.store.database import StorePart
from data.store.leases import withheld_tasks
from data.store.people.audit import record
from data.store.queries import (
    OUT_OF_CIRCULATION,
    UNDECIDED,
    WITHHELD_IMAGES,
    Row,
    find_row,
    insert_rows,
)
from data.store.tables import labels, prompts, raters, reports, tasks

MOST_OPEN = 20
"""Largest number of images that the undecided reports of one rater keep out of circulation."""


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
    """An image that is out of circulation, or whose report waits for a decision."""

    image_id: str
    prompt: str
    removed: bool
    """Whether an admin removed it; otherwise it waits for an admin's decision."""
    withheld: bool
    """Whether the image is out of circulation; false if its rater had too many open reports."""
    reports: Sequence[Report]
    """Unsettled reports of the image, oldest first."""


class Reports(StorePart):
    """Images that are out of circulation: `FeedbackStore.reports`.

    `FeedbackStore.submit` and `undo` open and withdraw reports.
    """

    def withheld_tasks(self, task_ids: Collection[str]) -> list[str]:
        """Select the tasks with an image that is out of circulation."""
        with self.database.read() as connection:
            return withheld_tasks(connection, task_ids)

    def withheld_images(self, image_ids: Collection[str]) -> set[str]:
        """Select the images that are out of circulation."""
        with self.database.read() as connection:
            return set(connection.scalars(WITHHELD_IMAGES.where(reports.c.image_id.in_(image_ids))))

    def images(self) -> list[ReportedImage]:
        """Return all images that have an unsettled report, in the order of their first reports."""
        query = (
            sa.select(reports.c.image_id, reports.c.state, prompts.c.prompt, raters.c.name, labels)
            .join(labels, labels.c.label_id == reports.c.label_id)
            .join(raters, raters.c.rater_id == labels.c.rater_id)
            .join(tasks, tasks.c.task_id == labels.c.task_id)
            .join(prompts, prompts.c.prompt_id == tasks.c.prompt_id)
            .where(sa.or_(OUT_OF_CIRCULATION, UNDECIDED))
        )
        found: dict[str, list[Row]] = {}
        with self.database.read() as connection:
            # sorted here: SQLite would scan all labels for the few reports
            for row in sorted(connection.execute(query), key=lambda row: row.sequence):
                found.setdefault(row.image_id, []).append(row)
        return [
            ReportedImage(
                image_id,
                rows[0].prompt,
                removed=any(row.state == "removed" for row in rows),
                withheld=any(row.state != "waiting" for row in rows),
                reports=[_report(row) for row in rows],
            )
            for image_id, rows in found.items()
        ]

    def decide(self, image_id: str, decision: Decision, admin_id: str) -> None:
        """Put an image back into circulation (`kept`), or keep it out permanently (`removed`).

        A kept image stays in circulation until a rater reports it again.

        Raises:
            NotFound: the image has no undecided report, or was removed before.
        """
        is_removed = sa.and_(reports.c.image_id == image_id, reports.c.state == "removed")
        open_to_change = UNDECIDED if decision == "removed" else sa.or_(UNDECIDED, is_removed)
        change = sa.update(reports).where(reports.c.image_id == image_id, open_to_change)
        with self.write() as (connection, now):
            was_removed = connection.scalar(sa.select(sa.exists().where(is_removed)))
            values = {"state": decision, "decided_by": admin_id, "decided_at": now}
            if connection.execute(change.values(values)).rowcount == 0:
                raise NotFound(f"image {image_id}: no report of it is open; look at the list again")
            before, after = {"state": "removed" if was_removed else "open"}, {"state": decision}
            record(
                connection,
                "decide_image",
                now,
                admin_id,
                subject=image_id,
                before=before,
                after=after,
            )


def open_reports(
    connection: sa.Connection,
    label_id: str,
    task: Task,
    answer: Answer,
    *,
    limited_rater: str | None = None,
) -> None:
    """Take the images that a new live label reports out of circulation.

    The right answer to hidden gold reports nothing. At most `MOST_OPEN` reports of `limited_rater`
    may be open; None sets no limit.
    """
    reported = sorted(reported_images(answer, task.image_ids))
    if not reported or _is_gold(connection, task.task_id, answer):
        return
    left = (
        len(reported)
        if limited_rater is None
        else MOST_OPEN - _count_open(connection, limited_rater)
    )
    row = {"label_id": label_id, "state": "open"}
    rows = [row | {"image_id": image_id} for image_id in reported]
    for late in rows[max(left, 0) :]:
        late["state"] = "waiting"
    insert_rows(connection, reports, rows)


def _is_gold(connection: sa.Connection, task_id: str, answer: Answer) -> bool:
    """Whether the task is hidden gold and the answer is right."""
    row = find_row(connection, tasks, task_id)
    if row is None or row.gold_source is None:
        return False
    return agrees_with_gold(answer, parse_answer(answer.kind, row.gold_json)) is True


def _count_open(connection: sa.Connection, rater_id: str) -> int:
    """Count the rater's reports that keep an image out of circulation and wait for an admin."""
    query = (
        sa.select(sa.func.count())
        .select_from(reports.join(labels, labels.c.label_id == reports.c.label_id))
        .where(reports.c.state == "open", labels.c.rater_id == rater_id)
    )
    return connection.scalar(query) or 0


def _report(row: Row) -> Report:
    answer = parse_answer(row.kind, row.answer_json)
    return Report(row.name, answer.reason, answer.comment, row.submitted_at)
