"""Comparisons of models: axis, models and subject of a task, and the wording that was shown."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the table and the columns, which are empty for what was there before."""
    op.create_table(
        "wordings",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("axis", sa.String(20), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_wordings"),
    )
    op.add_column("tasks", sa.Column("axis", sa.String(20)))
    op.add_column("tasks", sa.Column("models", sa.JSON(none_as_null=True)))
    op.add_column("tasks", sa.Column("subject", sa.Text))
    op.add_column("tasks", sa.Column("reference", sa.String(200)))
    op.add_column("leases", sa.Column("wording", sa.String(64)))
    op.add_column("labels", sa.Column("wording", sa.String(64)))
