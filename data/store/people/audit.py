"""Audit trail of admins' actions: actor, action, subject, time, and the values before and after.

Each entry is written in the transaction of its change. Entries are never changed or removed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from data.store.database import StorePart
from data.store.tables import audit, raters

Action = Literal[
    "add_rater",
    "set_password",
    "set_role",
    "set_status",
    "set_paused",
    "decide_image",
    "adjudicate",
    "withdraw_adjudication",
    "export",
    "download",
]
Values = Mapping[str, object]

ABOUT_RATERS: frozenset[Action] = frozenset(("add_rater", "set_password", "set_role", "set_status"))
"""Actions whose subject is the store's own id of a rater."""


@dataclass(frozen=True)
class AuditEntry:
    """One action."""

    sequence: int
    at: datetime
    actor: str | None
    """Name of the admin; None for the app itself and for commands at the shell."""
    action: Action
    subject: str | None
    """Name of the rater, or id of the image or task; None for the campaign."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def record(
    connection: sa.Connection,
    action: Action,
    now: datetime,
    by: str | None,
    *,
    subject: str | None = None,
    before: Values | None = None,
    after: Values | None = None,
) -> None:
    """Add an entry; `by` is the id of the admin, None for the app itself and the shell."""
    row = {
        "at": now,
        "actor_id": by,
        "action": action,
        "subject": subject,
        "before_json": None if before is None else json.dumps(before, ensure_ascii=False),
        "after_json": None if after is None else json.dumps(after, ensure_ascii=False),
    }
    connection.execute(sa.insert(audit).values(row))


class Audit(StorePart):
    """The trail: `FeedbackStore.audit`."""

    def note(self, action: Action, by: str, *, after: Values | None = None) -> None:
        """Add an entry about an action that changes nothing in the store."""
        with self.write() as (connection, now):
            record(connection, action, now, by, after=after)

    def latest(self, limit: int) -> list[AuditEntry]:
        """Return the latest entries, newest first."""
        actors, subjects = raters.alias(), raters.alias()
        is_rater = sa.and_(audit.c.action.in_(ABOUT_RATERS), subjects.c.rater_id == audit.c.subject)
        query = (
            sa.select(audit, actors.c.name.label("actor"), subjects.c.name.label("named"))
            .outerjoin(actors, actors.c.rater_id == audit.c.actor_id)
            .outerjoin(subjects, is_rater)
            .order_by(audit.c.sequence.desc())
            .limit(limit)
        )
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return [
            AuditEntry(
                row.sequence,
                row.at,
                row.actor,
                row.action,
                row.named or row.subject,
                before=json.loads(row.before_json or "null"),
                after=json.loads(row.after_json or "null"),
            )
            for row in rows
        ]
