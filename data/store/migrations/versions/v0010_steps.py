"""Comparisons with five answers."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column; comparisons that are there offer three answers."""
    op.add_column("tasks", sa.Column("steps", sa.Integer))
