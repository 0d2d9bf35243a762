"""Labels and their revisions; each function works in its caller's transaction."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from data.feedback import Receipt, Submission
from data.ids import uuid7
from data.kinds.kind import Answer, InvalidAnswer
from data.kinds.registry import kind_of
from data.store.queries import RATER, TASK, UNDECIDED, Row
from data.store.tables import labels, raters, reports, tasks

SENT_WITH_AN_ANSWER = (set(Submission.model_fields) & set(labels.c.keys())) - {
    "task_id",
    "rater_id",
}
"""Columns of labels that are copied from the submission."""

_OF_RATER = sa.and_(labels.c.task_id == TASK, labels.c.rater_id == RATER)
_RETIRE = sa.update(labels).where(_OF_RATER, labels.c.is_live).values(is_live=sa.false())
_RETIRED = sa.select(labels.c.label_id).where(_OF_RATER, ~labels.c.is_live)
_WITHDRAW = (
    sa.update(reports).where(reports.c.label_id.in_(_RETIRED), UNDECIDED).values(state="withdrawn")
)
_RECEIVED = sa.select(labels).where(labels.c.submission_id == sa.bindparam("submission"))
_LAST_REVISION = sa.select(sa.func.max(labels.c.revision)).where(_OF_RATER)
_INSERT = sa.insert(labels)
_LATEST_LIVE = (
    sa.select(labels)
    .where(labels.c.rater_id == RATER, labels.c.is_live)
    .order_by(labels.c.sequence.desc())
    .limit(1)
)
_COUNT_LIVE = sa.select(sa.func.count()).where(labels.c.rater_id == RATER, labels.c.is_live)
_LIVE_OF_TASK = (
    sa.select(sa.func.count())
    .select_from(labels)
    .join(raters, raters.c.rater_id == labels.c.rater_id)
    .where(labels.c.task_id == tasks.c.task_id, labels.c.is_live, raters.c.status != "left_out")
)
_COUNT_AGAIN = sa.update(tasks).values(
    {
        column: _LIVE_OF_TASK.where(raters.c.source.in_((source, "imported"))).scalar_subquery()
        for column, source in (("n_live", "human"), ("n_simulated", "simulated"))
    }
)
_RECOUNT = _COUNT_AGAIN.where(tasks.c.task_id.in_(sa.bindparam("of_tasks", expanding=True)))
_RECOUNT_OF_RATER = _COUNT_AGAIN.where(
    tasks.c.task_id.in_(
        sa.select(labels.c.task_id).where(labels.c.rater_id == RATER, labels.c.is_live)
    )
)


def latest_live(connection: sa.Connection, rater_id: str) -> Row | None:
    """Return the rater's last live label."""
    return connection.execute(_LATEST_LIVE, {"of_rater": rater_id}).one_or_none()


def count_live(connection: sa.Connection, rater_id: str) -> int:
    """Count the rater's live labels."""
    return connection.scalar(_COUNT_LIVE, {"of_rater": rater_id}) or 0


def add_revision(
    connection: sa.Connection, lease: Row, now: datetime, values: dict[str, object]
) -> Receipt:
    """Add the next revision of the leased task's label; `values` are the columns of the answer."""
    ids = {"of_task": lease.task_id, "of_rater": lease.rater_id}
    revision = (connection.scalar(_LAST_REVISION, ids) or 0) + 1
    label_id = uuid7(now, str(values["submission_id"]))
    shown = {
        "task_id": lease.task_id,
        "rater_id": lease.rater_id,
        "shown_order": lease.shown_order,
        "shown_at": lease.shown_at,
        "wording": lease.wording,
    }
    own = {"label_id": label_id, "revision": revision, "submitted_at": now}
    connection.execute(_INSERT, shown | own | values)
    return Receipt(label_id, revision, created=True)


def answer_values(answer: Answer) -> dict[str, object]:
    """Return the columns of a label that are derived from its answer."""
    return {
        "kind": answer.kind,
        "answer_json": answer.model_dump_json(),
        "outcome": kind_of(answer).outcome(answer),
        "has_comment": bool(answer.comment),
    }


def earlier_receipt(connection: sa.Connection, submission: Submission) -> Receipt | None:
    """Return the receipt of an earlier call with this submission; None without one.

    Raises:
        InvalidAnswer: that label is about another task or by another rater.
    """
    submission_id = {"submission": submission.submission_id}
    received = connection.execute(_RECEIVED, submission_id).one_or_none()
    if received is None:
        return None
    if (received.task_id, received.rater_id) != (submission.task_id, submission.rater_id):
        raise InvalidAnswer(
            f"submission {submission.submission_id}: was used for another task or rater; "
            "give each answer an id of its own"
        )
    return Receipt(received.label_id, received.revision, created=False)


def retire_live(connection: sa.Connection, task_id: str, rater_id: str) -> bool:
    """Make the rater's live label of the task an earlier revision; return whether it existed.

    The label's reports of images are withdrawn.
    """
    ids = {"of_task": task_id, "of_rater": rater_id}
    if connection.execute(_RETIRE, ids).rowcount == 0:
        return False
    connection.execute(_WITHDRAW, ids)
    return True


def recount_live(connection: sa.Connection, task_ids: Sequence[str]) -> None:
    """Update the tasks' numbers of live labels after a change of labels."""
    connection.execute(_RECOUNT, {"of_tasks": list(task_ids)})


def recount_live_of(connection: sa.Connection, rater_id: str) -> None:
    """Update the numbers of live labels of the rater's tasks after the rater was left out."""
    connection.execute(_RECOUNT_OF_RATER, {"of_rater": rater_id})
