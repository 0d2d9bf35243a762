"""Comparisons with five answers."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; comparisons that are there offer three answers."""
    op.add_column("tasks", sa.Column("steps", sa.Integer))
