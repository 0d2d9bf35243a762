"""Settings of a feedback store: random values drawn when it is new, and the pause of its campaign.

Each function works in its caller's transaction.
"""

import random
from datetime import datetime

import sqlalchemy as sa

from data.store.queries import find_row
from data.store.tables import settings


def read_or_draw(connection: sa.Connection, name: str, rng: random.Random) -> str:
    """Return a setting of 128 random bits, drawn when the store is new."""
    row = find_row(connection, settings, name)
    if row is not None:
        return str(row.value)
    value = f"{rng.getrandbits(128):032x}"
    connection.execute(sa.insert(settings).values(name=name, value=value))
    return value


def is_paused(connection: sa.Connection) -> bool:
    """Whether the campaign is paused."""
    return find_row(connection, settings, "paused") is not None


def set_paused(connection: sa.Connection, paused: bool, now: datetime) -> None:
    """Note that the campaign is paused since now, or that it is not."""
    connection.execute(sa.delete(settings).where(settings.c.name == "paused"))
    if paused:
        connection.execute(sa.insert(settings).values(name="paused", value=now.isoformat()))
