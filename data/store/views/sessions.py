"""The sessions of the feedback store as tables of `data/sessions.py`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from data.sessions import SESSION_CANDIDATES, SESSION_TURNS, SESSIONS
from data.store.tables import session_candidates, session_turns, sessions
from data.store.views.rows import RaterFacts

SESSION_TABLES = {
    "sessions": SESSIONS,
    "session_turns": SESSION_TURNS,
    "session_candidates": SESSION_CANDIDATES,
}
"""The files of sessions in an export, without the ending; an export without sessions has none."""


def session_tables(
    connection: sa.Connection, known_raters: Mapping[str, RaterFacts]
) -> dict[str, pa.Table]:
    """Return the tables of sessions in the order of their keys, without raters who are left out.

    There are no tables without sessions.
    """
    raters = {key: one for key, one in known_raters.items() if one.status != "left_out"}
    heads = [row for row in _rows(connection, sessions) if row["rater_id"] in raters]
    known = {row["session_id"] for row in heads}
    turns, candidates = (
        [row for row in _rows(connection, table) if row["session_id"] in known]
        for table in (session_turns, session_candidates)
    )
    chosen = {(row["session_id"], row["turn"]): row["chosen"] for row in turns}
    answered = Counter(row["session_id"] for row in turns if row["answered_at"] is not None)
    for row in heads:
        rater = raters[row["rater_id"]]
        row |= {"rater_id": rater.public_id, "source": rater.source}
        row["n_turns"] = answered[row["session_id"]]
    for row in candidates:
        row["chosen"] = chosen[row["session_id"], row["turn"]] == row["candidate"]
    rows = (heads, turns, candidates) if heads else ()
    return {
        name: pa.Table.from_pylist(some, schema=schema)
        for (name, schema), some in zip(SESSION_TABLES.items(), rows, strict=False)
    }


def _rows(connection: sa.Connection, table: sa.Table) -> list[dict[str, Any]]:
    in_order = sa.select(table).order_by(*table.primary_key.columns)
    return [dict(row) for row in connection.execute(in_order).mappings()]
