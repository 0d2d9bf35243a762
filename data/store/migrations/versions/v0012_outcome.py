"""Columns of labels by which answers are searched."""

import sqlalchemy as sa
from alembic import op

from data.kinds.registry import parse_answer
from data.store.revisions import answer_values

revision = "0012"
down_revision = "0011"

_labels = sa.table(
    "labels",
    *(sa.column(name) for name in ("sequence", "kind", "answer_json", "outcome", "has_comment")),
)


def upgrade() -> None:
    """Add the columns, and fill them from the answers that are there."""
    op.add_column("labels", sa.Column("outcome", sa.String(20)))
    empty = sa.Column("has_comment", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("labels", empty)
    connection = op.get_bind()
    given = sa.select(_labels).where(_labels.c.answer_json.is_not(None))
    for row in connection.execute(given).all():
        found = answer_values(parse_answer(row.kind, row.answer_json))
        change = {name: found[name] for name in ("outcome", "has_comment")}
        connection.execute(
            sa.update(_labels).where(_labels.c.sequence == row.sequence).values(change)
        )
