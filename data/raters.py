"""What the store knows of raters besides their labels: accounts, sign-outs and training."""

import unicodedata
from collections.abc import Callable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from data.database import Database
from data.feedback import Account, NotFound, Role, Source, Status
from data.queries import Row, find_row
from data.tables import ended_sessions, raters, training_answers

_SIGNED_IN = sa.select(raters).where(
    raters.c.rater_id == sa.bindparam("rater_id"),
    ~sa.exists().where(ended_sessions.c.session_id == sa.bindparam("session_id")),
)


class Raters:
    """Accounts, sign-outs and training answers; `FeedbackStore.raters`, and `FeedbackStore.add_rater` adds one."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def find(self, name: str, *, source: Source = "human") -> Account | None:
        """The rater of this name, see `find_named`."""
        with self._database.read() as connection:
            row = find_named(connection, name, source)
        return None if row is None else _account(row)

    def get(self, rater_id: str) -> Account | None:
        """The rater of this id."""
        with self._database.read() as connection:
            row = find_row(connection, raters, rater_id)
        return None if row is None else _account(row)

    def get_signed_in(self, rater_id: str, session_id: str) -> Account | None:
        """The rater of this id, unless this browser session of theirs was ended."""
        with self._database.read() as connection:
            row = connection.execute(
                _SIGNED_IN, {"rater_id": rater_id, "session_id": session_id}
            ).one_or_none()
        return None if row is None else _account(row)

    def end_session(self, session_id: str) -> None:
        """Ends a browser session for good; other sessions of the rater go on."""
        with self._database.write() as connection:
            if find_row(connection, ended_sessions, session_id) is None:
                connection.execute(
                    sa.insert(ended_sessions).values(session_id=session_id, ended_at=self._clock())
                )

    def has_passwords(self) -> bool:
        """Whether anyone can sign in with a password."""
        with self._database.read() as connection:
            return (
                connection.scalar(
                    sa.select(raters.c.rater_id).where(raters.c.password_hash.is_not(None)).limit(1)
                )
                is not None
            )

    def set_password(self, rater_id: str, password_hash: str) -> None:
        """Sets or changes the password, given as its hash."""
        self._change(rater_id, {"password_hash": password_hash})

    def set_role(self, rater_id: str, role: Role) -> None:
        """Makes an admin of a rater or the other way round."""
        self._change(rater_id, {"role": role})

    def set_status(self, rater_id: str, status: Status) -> None:
        """Pauses a rater, who is then given no tasks, or lets them go on, with a new record on gold."""
        self._change(
            rater_id,
            {"status": status} | ({"resumed_at": self._clock()} if status == "active" else {}),
        )

    def trained(self, rater_id: str) -> set[str]:
        """The training items that the rater has answered."""
        with self._database.read() as connection:
            return set(
                connection.scalars(
                    sa.select(training_answers.c.item_id).where(
                        training_answers.c.rater_id == rater_id
                    )
                )
            )

    def add_training_answer(self, rater_id: str, item_id: str, *, is_correct: bool) -> None:
        """Notes that the rater has answered a training item; the first answer counts."""
        row = {
            "rater_id": rater_id,
            "item_id": item_id,
            "is_correct": is_correct,
            "answered_at": self._clock(),
        }
        with self._database.write() as connection:
            # locks the rater's row: of two answers at once the second finds the first
            if (
                connection.scalar(
                    sa.select(raters.c.rater_id)
                    .where(raters.c.rater_id == rater_id)
                    .with_for_update()
                )
                is None
            ):
                raise NotFound(f"rater {rater_id}: not known; sign in again")
            answered = sa.select(training_answers).where(
                training_answers.c.rater_id == rater_id, training_answers.c.item_id == item_id
            )
            if connection.execute(answered).one_or_none() is None:
                connection.execute(sa.insert(training_answers).values(row))

    def _change(self, rater_id: str, values: dict[str, Any]) -> None:
        with self._database.write() as connection:
            if (
                connection.execute(
                    sa.update(raters).where(raters.c.rater_id == rater_id).values(values)
                ).rowcount
                == 0
            ):
                raise NotFound(f"rater {rater_id}: not known; add the rater first")


def find_named(connection: sa.Connection, name: str, source: Source) -> Row | None:
    """The rater of exactly this name; else, of people, the one whose name differs in case, spaces or composition alone.

    Of several such, in stores from before they were taken for one, none is meant.
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
    return Account(row.rater_id, row.name, row.source, row.role, row.status, row.password_hash)
