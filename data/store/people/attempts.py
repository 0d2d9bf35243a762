"""Rate limits, shared by all replicas of an app."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from data.store.database import StorePart
from data.store.queries import INSERT_OF
from data.store.tables import sign_in_attempts as rows

_IS_KEY = rows.c.key == sa.bindparam("of_key")
_UPDATE = sa.update(rows).where(_IS_KEY)
# The update changes nothing: it locks and returns the existing row.
_FIND_OR_INSERT = {
    name: insert(rows)
    .on_conflict_do_update(index_elements=[rows.c.key], set_={"expires_at": rows.c.expires_at})
    .returning(rows.c.times)
    for name, insert in INSERT_OF.items()
}
# Rows that another transaction has locked are skipped, to avoid deadlocks.
_EXPIRED = (
    sa.select(rows.c.key)
    .where(rows.c.expires_at <= sa.bindparam("now"))
    .with_for_update(skip_locked=True)
)
_FORGET = sa.delete(rows).where(rows.c.key.in_(_EXPIRED))


@dataclass(frozen=True)
class Limit:
    """The most attempts at one thing within a window of time."""

    subject: str
    """Key of the counted attempts, unique among all limits."""
    most: int
    window_s: float


@dataclass(eq=False)
class Attempts(StorePart):
    """Attempts within the windows of their limits; see `FeedbackStore.attempts`.

    Subjects may contain names and addresses, so they are stored as salted hashes. The first attempt
    after the end of a window deletes them.
    """

    salt: str

    def count(self, limits: Sequence[Limit]) -> int:
        """Count an attempt towards all limits and return 0, or return the whole seconds to wait.

        If one of the limits is reached, no limit counts the attempt. All callers must pass limits
        in the same order by kind, to avoid deadlocks.
        """
        now = self.clock()
        with self.database.write() as connection:
            earlier = [self._times(connection, limit, now) for limit in limits]
            for limit, times in zip(limits, earlier, strict=True):
                if len(times) >= limit.most:
                    return math.ceil(times[0] + limit.window_s - now.timestamp())
            for limit, times in zip(limits, earlier, strict=True):
                self._keep(connection, limit, [*times, now.timestamp()])
        # A separate transaction, which waits for no other and blocks no other.
        with self.database.write() as connection:
            connection.execute(_FORGET, {"now": now})
        return 0

    def take_back(self, limits: Iterable[Limit]) -> None:
        """Remove the last attempt from each limit."""
        now = self.clock()
        with self.database.write() as connection:
            for limit in limits:
                self._keep(connection, limit, self._times(connection, limit, now)[:-1])

    def _times(self, connection: sa.Connection, limit: Limit, now: datetime) -> list[float]:
        """Return the attempts within the limit's window, oldest first, and lock their row."""
        row = {"key": self._key(limit), "times": [], "expires_at": now}
        times: list[float] = connection.scalar(_FIND_OR_INSERT[connection.dialect.name], row)
        return [time for time in times if time > now.timestamp() - limit.window_s]

    def _keep(self, connection: sa.Connection, limit: Limit, times: list[float]) -> None:
        seconds = times[-1] + limit.window_s if times else 0.0
        expires_at = datetime.fromtimestamp(seconds, UTC)
        values = {"of_key": self._key(limit), "times": times, "expires_at": expires_at}
        connection.execute(_UPDATE, values)

    def _key(self, limit: Limit) -> str:
        return hashlib.sha256(f"{self.salt}:{limit.subject}".encode()).hexdigest()
