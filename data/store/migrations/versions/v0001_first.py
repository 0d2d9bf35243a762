"""The first tables.

`env.py` gives alembic the tables of `data.store.tables`, and with them the names of constraints.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from data.store.tables import UtcDateTime

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite numbers rows itself only in a column of its own integer type."""


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "settings",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    _create_raters()
    _create_tasks()
    _create_labels()


def _create_raters() -> None:
    op.create_table(
        "raters",
        sa.Column("rater_id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("joined_at", UtcDateTime, nullable=False),
        sa.Column("role", sa.String(20), nullable=False, server_default="rater"),
        sa.Column("password_hash", sa.Text),
        sa.Column("status", sa.String(20), nullable=False, server_default="active"),
        sa.Column("resumed_at", UtcDateTime),
        sa.Column("share", sa.Double),
        sa.UniqueConstraint("source", "name"),
    )
    op.create_table(
        "training_answers",
        sa.Column("rater_id", sa.String(36), sa.ForeignKey("raters.rater_id"), primary_key=True),
        sa.Column("item_id", sa.String(64), primary_key=True),
        sa.Column("is_correct", sa.Boolean, nullable=False),
        sa.Column("answered_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "ended_sessions",
        sa.Column("session_id", sa.String(36), primary_key=True),
        sa.Column("ended_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "sign_in_attempts",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("times", sa.JSON, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
    )
    op.create_table(
        "audit",
        sa.Column("sequence", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("actor_id", sa.String(36), sa.ForeignKey("raters.rater_id")),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(200)),
        sa.Column("before_json", sa.Text),
        sa.Column("after_json", sa.Text),
        sqlite_autoincrement=True,
    )


def _create_tasks() -> None:
    op.create_table(
        "wordings",
        sa.Column("version", sa.String(64), primary_key=True),
        sa.Column("axis", sa.String(20), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "prompts",
        sa.Column("prompt_id", sa.String(64), primary_key=True),
        sa.Column("prompt", sa.Text, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("prompt_id", sa.String(64), sa.ForeignKey("prompts.prompt_id"), nullable=False),
        sa.Column("overlap", sa.Integer, nullable=False),
        sa.Column("n_live", sa.Integer, nullable=False),
        sa.Column("priority", sa.Double, nullable=False),
        sa.Column("order_key", sa.BigInteger, nullable=False),
        sa.Column("gold_json", sa.Text),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("gold_source", sa.String(200)),
        sa.Column("repeat_of", sa.String(64)),
        sa.Column("n_simulated", sa.Integer, nullable=False, server_default="0"),
        sa.Column("axis", sa.String(20)),
        sa.Column("models", sa.JSON(none_as_null=True)),
        sa.Column("subject", sa.Text),
        sa.Column("reference", sa.String(200)),
        sa.Column("steps", sa.Integer),
        sa.CheckConstraint("n_live >= 0", name="n_live"),
    )
    op.create_table(
        "task_images",
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.task_id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("image_id", sa.String(200), nullable=False, index=True),
    )
    in_order: list[str | sa.TextClause] = [sa.text("priority DESC"), "order_key"]
    _create_index("ix_tasks_queue", "tasks", in_order, "n_live < overlap")
    _create_index("ix_tasks_simulated", "tasks", in_order, "n_simulated < overlap")
    _create_index("ix_tasks_gold", "tasks", ["n_live"], "gold_source IS NOT NULL")
    _create_index("ix_tasks_repeat_of", "tasks", ["repeat_of"], "repeat_of IS NOT NULL")


def _create_labels() -> None:
    op.create_table(
        "leases",
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.task_id"), primary_key=True),
        sa.Column(
            "rater_id",
            sa.String(36),
            sa.ForeignKey("raters.rater_id"),
            primary_key=True,
            index=True,
        ),
        sa.Column("shown_order", sa.JSON, nullable=False),
        sa.Column("shown_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("wording", sa.String(64)),
        sa.Column("aside_at", UtcDateTime),
    )
    _create_index("ix_leases_aside", "leases", ["rater_id"], "aside_at IS NOT NULL")
    op.create_table(
        "labels",
        sa.Column("sequence", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("label_id", sa.String(36), nullable=False),
        sa.Column("submission_id", sa.String(200), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("is_live", sa.Boolean, nullable=False),
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.task_id"), nullable=False),
        sa.Column("rater_id", sa.String(36), sa.ForeignKey("raters.rater_id"), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("answer_json", sa.Text),
        sa.Column("outcome", sa.String(20)),
        sa.Column("has_comment", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("shown_order", sa.JSON, nullable=False),
        sa.Column("shown_at", UtcDateTime, nullable=False),
        sa.Column("submitted_at", UtcDateTime, nullable=False),
        sa.Column("time_on_task_ms", sa.Integer),
        sa.Column("lease_late", sa.Boolean, nullable=False),
        sa.Column("input_mode", sa.String(20)),
        sa.Column("session_id", sa.String(200)),
        sa.Column("app_version", sa.String(200)),
        sa.Column("guideline_version", sa.String(200)),
        sa.Column("active_ms", sa.Integer),
        sa.Column("wording", sa.String(64)),
        sa.UniqueConstraint("label_id"),
        sa.UniqueConstraint("submission_id"),
        sa.UniqueConstraint("task_id", "rater_id", "revision"),
        sa.Index("ix_labels_rater_id_is_live", "rater_id", "is_live"),
        sa.Index("ix_labels_submitted_at", "submitted_at"),
        sqlite_autoincrement=True,
    )
    one_live = ["task_id", "rater_id"]
    _create_index("ix_labels_one_live", "labels", one_live, "is_live", unique=True)
    op.create_table(
        "reports",
        sa.Column("label_id", sa.String(36), sa.ForeignKey("labels.label_id"), primary_key=True),
        sa.Column("image_id", sa.String(200), primary_key=True, index=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("decided_by", sa.String(36), sa.ForeignKey("raters.rater_id")),
        sa.Column("decided_at", UtcDateTime),
    )


def _create_index(
    name: str, table: str, columns: Sequence[str | sa.TextClause], of: str, *, unique: bool = False
) -> None:
    """Create an index of the rows for which the condition `of` holds."""
    where = sa.text(of)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
