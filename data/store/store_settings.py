"""Settings of a feedback store: random values drawn when it is new, and what admins have set.

Each function works in its caller's transaction.
"""

import json
import random
from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from data.kinds.registry import TaskKind
from data.store.people.audit import record
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


def set_paused(connection: sa.Connection, paused: bool, now: datetime, by: str | None) -> None:
    """Note that the campaign is paused since now, or that it is not, and who said so."""
    before = {"paused": is_paused(connection)}
    if before["paused"] == paused:
        return
    record(connection, "set_paused", now, by, before=before, after={"paused": paused})
    connection.execute(sa.delete(settings).where(settings.c.name == "paused"))
    if paused:
        connection.execute(sa.insert(settings).values(name="paused", value=now.isoformat()))


def read_overlaps(connection: sa.Connection) -> dict[TaskKind, int]:
    """Return the overlaps that admins asked for, by kind of task."""
    row = find_row(connection, settings, "overlaps")
    return {} if row is None else json.loads(row.value)


def write_overlaps(connection: sa.Connection, overlaps: Mapping[TaskKind, int]) -> None:
    """Remember the overlaps that admins asked for."""
    connection.execute(sa.delete(settings).where(settings.c.name == "overlaps"))
    connection.execute(sa.insert(settings).values(name="overlaps", value=json.dumps(overlaps)))
