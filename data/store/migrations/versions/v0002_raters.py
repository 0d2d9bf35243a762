"""Roles, passwords, pauses and training of raters, active time, and tasks that check raters.

Such tasks are those with gold answers and repeats.
"""

import sqlalchemy as sa
from alembic import op

from data.store.tables import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns, which leaves every row where it is, and the table of training answers."""
    op.add_column(
        "raters", sa.Column("role", sa.String(20), nullable=False, server_default="rater")
    )
    op.add_column("raters", sa.Column("password_hash", sa.Text))
    op.add_column(
        "raters", sa.Column("status", sa.String(20), nullable=False, server_default="active")
    )
    op.add_column("labels", sa.Column("active_ms", sa.Integer))
    op.add_column("tasks", sa.Column("gold_source", sa.String(200)))
    op.add_column("tasks", sa.Column("repeat_of", sa.String(64)))
    gold, repeat = sa.text("gold_source IS NOT NULL"), sa.text("repeat_of IS NOT NULL")
    op.create_index("ix_tasks_gold", "tasks", ["n_live"], sqlite_where=gold, postgresql_where=gold)
    op.create_index(
        "ix_tasks_repeat_of", "tasks", ["repeat_of"], sqlite_where=repeat, postgresql_where=repeat
    )
    op.create_table(
        "training_answers",
        sa.Column("rater_id", sa.String(36), nullable=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("is_correct", sa.Boolean, nullable=False),
        sa.Column("answered_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("rater_id", "item_id", name="pk_training_answers"),
        sa.ForeignKeyConstraint(
            ["rater_id"], ["raters.rater_id"], name="fk_training_answers_rater_id"
        ),
    )
