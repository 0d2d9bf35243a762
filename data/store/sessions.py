"""Sessions in the feedback store: slates before they are shown, and answers to them.

When a method returns, its effect is on disk. Nothing is deleted or changed: an answer is given
once, and a person who goes back begins a new turn. A session has one open turn at most, also where
several processes write at once.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import sqlalchemy as sa

from data.errors import PictuneError
from data.feedback import Source
from data.sessions import MOST_TURNS, Candidate, Session, Turn, TurnAnswer
from data.store.database import StorePart
from data.store.queries import Row, insert_rows, load_rater
from data.store.tables import raters, session_candidates, session_turns, sessions

_ANSWER = [session_turns.c[name] for name in TurnAnswer.model_fields]


class SessionRefused(PictuneError):
    """The session is not known or has ended, or the answer does not fit its turn."""


class Sessions(StorePart):
    """Sessions with their slates and answers: `FeedbackStore.sessions`."""

    def begin(
        self, session_id: str, rater_id: str, prompt: str, *, intent: str | None = None
    ) -> Session:
        """Begin a session; a known `session_id` of the same rater returns its session.

        Raises:
            NotFound: no such rater.
            SessionRefused: the session is another rater's.
        """
        with self.write() as (connection, now):
            load_rater(connection, rater_id, lock=True)
            known = self.find(session_id)
            if known is None:
                row = {"session_id": session_id, "rater_id": rater_id, "prompt": prompt}
                connection.execute(
                    sa.insert(sessions).values(row | {"intent": intent, "started_at": now})
                )
            elif known.rater_id != rater_id:
                raise SessionRefused(f"session {session_id}: of somebody else; begin your own")
            return self.get(session_id)

    def save_slate(
        self,
        session_id: str,
        candidates: Sequence[Candidate],
        *,
        after: int,
        prompt: str,
        policy: str,
    ) -> Turn:
        """Save the next turn, all that was proposed for it; return the turn to show.

        Where another process has saved a slate that waits for its answer, that turn is returned,
        and these candidates are dropped. `after`, `prompt` and `policy` are those of `Turn`.

        Raises:
            SessionRefused: the session is not known or has ended, or has no turn `after`.
        """
        with self.write() as (connection, now):
            _lock(connection, session_id)
            session = self._going_on(session_id)
            if (waiting := open_turn(session)) is not None:
                return waiting
            if after and not any(one.number == after for one in session.turns):
                raise SessionRefused(f"session {session_id}: has no turn {after} to go on from")
            key = {"session_id": session_id, "turn": len(session.turns) + 1}
            row = key | {"after": after, "prompt": prompt, "policy": policy, "shown_at": now}
            connection.execute(sa.insert(session_turns).values(row))
            rows = [
                key | vars(one) | {"candidate": number, "image_ids": list(one.image_ids)}
                for number, one in enumerate(candidates)
            ]
            insert_rows(connection, session_candidates, rows)
            return self.get(session_id).turns[-1]

    def save_answer(
        self, session_id: str, turn: int, answer: TurnAnswer, *, answer_id: str
    ) -> Session:
        """Save the answer to a turn; sending it again with its `answer_id` changes nothing.

        The session ends with an answer that stops, and with the answer to its last turn.

        Raises:
            SessionRefused: session or turn are not known, the session has ended, the candidate was
                not shown, or the turn has another answer.
        """
        with self.write() as (connection, now):
            _lock(connection, session_id)
            if _given(connection, session_id, turn) == answer_id:
                return self.get(session_id)
            session = self._going_on(session_id)
            asked = next((one for one in session.turns if one.number == turn), None)
            if asked is None:
                raise SessionRefused(f"session {session_id}: has no turn {turn}; load it again")
            if asked.answer is not None:
                raise SessionRefused(f"turn {turn} has an answer already; go on from it instead")
            if answer.chosen is not None and answer.chosen not in asked.shown:
                raise SessionRefused(
                    f"turn {turn} did not show candidate {answer.chosen}; pick one that it shows"
                )
            values = answer.model_dump(mode="json") | {"answer_id": answer_id, "answered_at": now}
            connection.execute(
                sa.update(session_turns)
                .where(session_turns.c.session_id == session_id, session_turns.c.turn == turn)
                .values(values)
            )
            if answer.stops or len(session.turns) >= MOST_TURNS:
                self.end(session_id)
            return self.get(session_id)

    def end(self, session_id: str) -> None:
        """End a session; one that has ended stays as it is, and an open turn has no answer."""
        going_on = sa.and_(sessions.c.session_id == session_id, sessions.c.ended_at.is_(None))
        with self.write() as (connection, now):
            connection.execute(sa.update(sessions).where(going_on).values(ended_at=now))

    def find(self, session_id: str) -> Session | None:
        """Return the session with all its turns; None if there is no such session."""
        return next(self._read(sessions.c.session_id == session_id), None)

    def get(self, session_id: str) -> Session:
        """Return the session with all its turns.

        Raises:
            SessionRefused: no such session.
        """
        session = self.find(session_id)
        if session is None:
            raise SessionRefused(f"session {session_id}: not known; begin a new one")
        return session

    def all(self, source: Source | None = None) -> list[Session]:
        """Return all sessions, or those of a source, in the order of their beginnings.

        Sessions of raters who are left out are omitted.
        """
        of_source = sa.true() if source is None else raters.c.source == source
        return list(self._read(sa.and_(of_source, raters.c.status != "left_out")))

    def _going_on(self, session_id: str) -> Session:
        """Return the session, which must not have ended."""
        session = self.get(session_id)
        if session.ended_at is not None:
            raise SessionRefused(f"session {session_id}: has ended; begin a new one")
        return session

    def _read(self, where: sa.ColumnElement[bool]) -> Iterator[Session]:
        """Yield sessions from one snapshot."""
        of_raters = sessions.join(raters, raters.c.rater_id == sessions.c.rater_id)
        chosen = sa.select(sessions.c.session_id).select_from(of_raters).where(where)
        heads = (
            sa.select(sessions, raters.c.source)
            .select_from(of_raters)
            .where(where)
            .order_by(sessions.c.started_at, sessions.c.session_id)
        )
        with self.database.read() as connection:
            found = connection.execute(heads).all()
            turns, candidates = (
                connection.execute(
                    sa.select(table)
                    .where(table.c.session_id.in_(chosen))
                    .order_by(*table.primary_key.columns)
                ).all()
                for table in (session_turns, session_candidates)
            )
        offered = {
            key: tuple(_candidate(row) for row in rows)
            for key, rows in groupby(candidates, key=lambda row: (row.session_id, row.turn))
        }
        by_session = {
            key: tuple(_turn(row, offered.get((key, row.turn), ())) for row in rows)
            for key, rows in groupby(turns, key=lambda row: row.session_id)
        }
        for head in found:
            yield Session(turns=by_session.get(head.session_id, ()), **head._asdict())


def open_turn(session: Session) -> Turn | None:
    """Return the turn that waits for its answer; None without one."""
    return next((one for one in session.turns if one.answer is None), None)


def _lock(connection: sa.Connection, session_id: str) -> None:
    """Keep other transactions from changing the session; SQLite has one that writes anyway."""
    row = sa.select(sessions).where(sessions.c.session_id == session_id).with_for_update()
    connection.execute(row).all()


def _given(connection: sa.Connection, session_id: str, turn: int) -> str | None:
    """Return the id of the answer to a turn; None without one."""
    query = sa.select(session_turns.c.answer_id).where(
        session_turns.c.session_id == session_id, session_turns.c.turn == turn
    )
    given: str | None = connection.scalar(query)
    return given


def _turn(row: Row, candidates: tuple[Candidate, ...]) -> Turn:
    answer = None
    if row.answered_at is not None:
        given = {column.name: getattr(row, column.name) for column in _ANSWER}
        answer = TurnAnswer.model_validate(given)
    asked = (row.turn, row.after, row.prompt, row.policy, candidates, row.shown_at)
    return Turn(*asked, answer, row.answered_at)


def _candidate(row: Row) -> Candidate:
    return Candidate(
        row.prompt, row.category, row.place, row.chance, row.value, tuple(row.image_ids)
    )
