"""Adjudication: an admin's answer to a disputed task.

It is a label with the source `adjudicator`, under a separate rater id, so that it never mixes with
the admin's labels as a rater. It takes no rater's place and overrides the raters' labels. A task
has at most one live adjudication; a later one, by any admin, replaces it.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from data.feedback import NotFound, Receipt, Source
from data.kinds.kind import Answer, InvalidAnswer
from data.kinds.registry import KINDS, check_answer
from data.store.database import StorePart
from data.store.leases import find_lease, give_lease
from data.store.people.audit import record
from data.store.people.raters import find_or_insert
from data.store.people.reports import open_reports
from data.store.queries import Row, load_rater, load_task
from data.store.revisions import add_revision, answer_values, retire_live
from data.store.tables import labels, raters

ADJUDICATIONS = (
    sa.select(labels)
    .join(raters, raters.c.rater_id == labels.c.rater_id)
    .where(labels.c.is_live, raters.c.source == "adjudicator")
)


@dataclass(eq=False)
class Adjudications(StorePart):
    """Adjudications of disputed tasks: `FeedbackStore.adjudications`."""

    rater_id_of: Callable[[Source, str], str]

    def decide(self, task_id: str, answer: Answer, admin_id: str) -> Receipt:
        """Save the admin's answer; an earlier adjudication of the task becomes a revision.

        Raises:
            NotFound: no such task or admin.
            InvalidAnswer: the answer does not fit the task.
        """
        with self.write() as (connection, now):
            task = load_task(connection, task_id, lock=True)
            if not KINDS[task.kind].can_be_decided:
                raise InvalidAnswer(
                    f"task {task_id}: a {task.kind} asks what people prefer, "
                    "so nobody can decide it"
                )
            check_answer(answer, task.kind, task.image_ids)
            name = load_rater(connection, admin_id).name
            own_id = self.rater_id_of("adjudicator", name)
            rater_id = find_or_insert(connection, name, "adjudicator", now, rater_id=own_id)
            before = _retire(connection, task_id)
            shown = {"shown_order": list(range(len(task.image_ids))), "shown_at": now}
            give_lease(connection, task_id, rater_id, **shown, expires_at=None)
            values = answer_values(answer) | {"is_live": True}
            receipt = _add(connection, task_id, rater_id, now, values)
            open_reports(connection, receipt.label_id, task, answer)
            record(
                connection,
                "adjudicate",
                now,
                admin_id,
                subject=task_id,
                before=None if before is None else json.loads(before.answer_json),
                after=answer.model_dump(mode="json"),
            )
            return receipt

    def withdraw(self, task_id: str, admin_id: str) -> None:
        """Undo the adjudication of a task: a revision without an answer replaces it.

        Raises:
            NotFound: the task does not exist or has no adjudication.
        """
        with self.write() as (connection, now):
            task = load_task(connection, task_id, lock=True)
            before = _retire(connection, task_id)
            if before is None:
                raise NotFound(f"task {task_id}: nobody has decided it; look at the list again")
            _add(connection, task_id, before.rater_id, now, {"kind": task.kind, "is_live": False})
            answer = json.loads(before.answer_json)
            record(
                connection, "withdraw_adjudication", now, admin_id, subject=task_id, before=answer
            )

    def task_ids(self) -> set[str]:
        """Return the tasks with an adjudication."""
        with self.database.read() as connection:
            return set(connection.scalars(ADJUDICATIONS.with_only_columns(labels.c.task_id)))


def _retire(connection: sa.Connection, task_id: str) -> Row | None:
    """Make the task's live adjudication an earlier revision; return it, or None without any.

    An import may have added several; then the latest is returned.
    """
    last = None
    of_task = ADJUDICATIONS.where(labels.c.task_id == task_id).order_by(labels.c.sequence)
    for last in connection.execute(of_task).all():
        retire_live(connection, task_id, last.rater_id)
    return last


def _add(
    connection: sa.Connection,
    task_id: str,
    rater_id: str,
    now: datetime,
    values: dict[str, object],
) -> Receipt:
    lease = find_lease(connection, task_id, rater_id)
    assert lease is not None
    own = {"submission_id": f"adjudication-{uuid.uuid4()}", "lease_late": False}
    return add_revision(connection, lease, now, own | values)
