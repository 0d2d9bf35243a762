"""Browser sessions that a rater has signed out of: copies of their cookies are no longer valid."""

import sqlalchemy as sa
from alembic import op

from data.store.tables import UtcDateTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "ended_sessions",
        sa.Column("session_id", sa.String(36), nullable=False),
        sa.Column("ended_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="pk_ended_sessions"),
    )
