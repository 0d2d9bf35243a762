"""Accounts, sign-outs and training answers of raters."""

import unicodedata
from dataclasses import fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from data.feedback import Account, NotFound, Role, Source, Status
from data.store.database import StorePart
from data.store.people.audit import Action, record
from data.store.queries import Row, find_row, load_rater
from data.store.revisions import recount_live_of
from data.store.tables import ended_sessions, raters, training_answers

_SIGNED_IN = sa.select(raters).where(
    raters.c.rater_id == sa.bindparam("rater_id"),
    ~sa.exists().where(ended_sessions.c.session_id == sa.bindparam("session_id")),
)


class Raters(StorePart):
    """Accounts, sign-outs and training answers: `FeedbackStore.raters`.

    `FeedbackStore.add_rater` adds a rater.
    """

    def find(self, name: str, *, source: Source = "human") -> Account | None:
        """Return the rater of this name, see `find_named`."""
        with self.database.read() as connection:
            row = find_named(connection, name, source)
        return None if row is None else _account(row)

    def get(self, rater_id: str) -> Account | None:
        """Return the rater of this id."""
        with self.database.read() as connection:
            row = find_row(connection, raters, rater_id)
        return None if row is None else _account(row)

    def get_signed_in(self, rater_id: str, session_id: str) -> Account | None:
        """Return the rater of this id, unless the rater has ended this browser session."""
        values = {"rater_id": rater_id, "session_id": session_id}
        with self.database.read() as connection:
            row = connection.execute(_SIGNED_IN, values).one_or_none()
        return None if row is None else _account(row)

    def end_session(self, session_id: str) -> None:
        """End a browser session permanently; other sessions of the rater continue."""
        with self.write() as (connection, now):
            if find_row(connection, ended_sessions, session_id) is None:
                row = {"session_id": session_id, "ended_at": now}
                connection.execute(sa.insert(ended_sessions).values(row))

    def has_passwords(self) -> bool:
        """Whether anyone can sign in with a password."""
        one = sa.select(raters.c.rater_id).where(raters.c.password_hash.is_not(None)).limit(1)
        with self.database.read() as connection:
            return connection.scalar(one) is not None

    def set_password(self, rater_id: str, password_hash: str, *, by: str | None = None) -> None:
        """Set or change the password, given as its hash."""
        self._set("set_password", rater_id, {}, by, password_hash=password_hash)

    def set_role(self, rater_id: str, role: Role, *, by: str | None = None) -> None:
        """Make a rater an admin, or an admin a rater."""
        self._set("set_role", rater_id, {"role": role}, by)

    def set_status(self, rater_id: str, status: Status, *, by: str | None = None) -> None:
        """Pause a rater, who is then given no tasks, or resume them with a new gold record.

        A rater who is left out is paused, and their labels count for nothing until they are
        resumed: exports omit them, and others are asked in their place.
        """
        resumed = {"resumed_at": self.clock()} if status == "active" else {}
        with self.write() as (connection, _):
            before = find_row(connection, raters, rater_id)
            self._set("set_status", rater_id, {"status": status}, by, **resumed)
            if "left_out" in (status, before and before.status):
                recount_live_of(connection, rater_id)

    def trained(self, rater_id: str) -> set[str]:
        """Return the training items that the rater has answered."""
        of_rater = training_answers.c.rater_id == rater_id
        with self.database.read() as connection:
            return set(connection.scalars(sa.select(training_answers.c.item_id).where(of_rater)))

    def add_training_answer(self, rater_id: str, item_id: str, *, is_correct: bool) -> None:
        """Note that the rater has answered a training item; the first answer counts.

        Raises:
            NotFound: no such rater.
        """
        with self.write() as (connection, now):
            # The lock: the second of two simultaneous answers finds the first.
            load_rater(connection, rater_id, lock=True)
            if item_id not in self.trained(rater_id):
                ids = {"rater_id": rater_id, "item_id": item_id}
                row = ids | {"is_correct": is_correct, "answered_at": now}
                connection.execute(sa.insert(training_answers).values(row))

    def _set(
        self, action: Action, rater_id: str, values: dict[str, Any], by: str | None, **more: object
    ) -> None:
        """Change columns and record the change; the record omits the values of `more`."""
        with self.write() as (connection, now):
            row = find_row(connection, raters, rater_id)
            if row is None:
                raise NotFound(f"rater {rater_id}: not known; add the rater first")
            update = sa.update(raters).where(raters.c.rater_id == rater_id)
            connection.execute(update.values(values | more))
            before = {name: getattr(row, name) for name in values}
            if not values:
                record(connection, action, now, by, subject=rater_id)
            elif before != values:
                record(connection, action, now, by, subject=rater_id, before=before, after=values)


def find_or_insert(
    connection: sa.Connection, name: str, source: Source, now: datetime, *, rater_id: str
) -> str:
    """Return the id of the rater of this name, see `find_named`, or insert one with `rater_id`."""
    known = find_named(connection, name, source)
    if known is not None:
        return str(known.rater_id)
    row = {"rater_id": rater_id, "name": name.strip(), "source": source, "joined_at": now}
    connection.execute(sa.insert(raters).values(row))
    return rater_id


def find_named(connection: sa.Connection, name: str, source: Source) -> Row | None:
    """Return the rater of exactly this name, or a person of a nearly equal name.

    Nearly equal names differ only in case, spaces or Unicode composition. An import may have added
    several such people; then the result is None.
    """
    of_source = sa.select(raters).where(raters.c.source == source)
    row = connection.execute(of_source.where(raters.c.name == name.strip())).one_or_none()
    if row is not None or source != "human":
        return row
    alike = [one for one in connection.execute(of_source) if _folded(one.name) == _folded(name)]
    return alike[0] if len(alike) == 1 else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", " ".join(name.split()).casefold())


def _account(row: Row) -> Account:
    return Account(**{field.name: getattr(row, field.name) for field in fields(Account)})
