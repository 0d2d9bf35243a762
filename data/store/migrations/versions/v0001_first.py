"""The first tables: raters, prompts, tasks, leases and labels."""

import sqlalchemy as sa
from alembic import op

from data.store.tables import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "settings",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_settings"),
    )
    op.create_table(
        "raters",
        sa.Column("rater_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("joined_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("rater_id", name="pk_raters"),
        sa.UniqueConstraint("source", "name", name="uq_raters_source_name"),
    )
    op.create_table(
        "prompts",
        sa.Column("prompt_id", sa.String(64), nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", name="pk_prompts"),
    )
    _create_tasks()
    _create_leases()
    _create_labels()


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("prompt_id", sa.String(64), nullable=False),
        sa.Column("overlap", sa.Integer, nullable=False),
        sa.Column("n_live", sa.Integer, nullable=False),
        sa.Column("priority", sa.Double, nullable=False),
        sa.Column("order_key", sa.BigInteger, nullable=False),
        sa.Column("gold_json", sa.Text),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.CheckConstraint("n_live >= 0", name="ck_tasks_n_live"),
        sa.PrimaryKeyConstraint("task_id", name="pk_tasks"),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.prompt_id"], name="fk_tasks_prompt_id"),
    )
    unfinished = sa.text("n_live < overlap")
    op.create_index(
        "ix_tasks_queue",
        "tasks",
        [sa.text("priority DESC"), "order_key"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
    op.create_table(
        "task_images",
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("image_id", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "position", name="pk_task_images"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_task_images_task_id"),
    )
    op.create_index("ix_task_images_image_id", "task_images", ["image_id"])


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("rater_id", sa.String(36), nullable=False),
        sa.Column("shown_order", sa.JSON, nullable=False),
        sa.Column("shown_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime),
        sa.PrimaryKeyConstraint("task_id", "rater_id", name="pk_leases"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_leases_task_id"),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.rater_id"], name="fk_leases_rater_id"),
    )
    op.create_index("ix_leases_rater_id", "leases", ["rater_id"])


def _create_labels() -> None:
    op.create_table(
        "labels",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("label_id", sa.String(36), nullable=False),
        sa.Column("submission_id", sa.String(200), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("is_live", sa.Boolean, nullable=False),
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("rater_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("answer_json", sa.Text),
        sa.Column("shown_order", sa.JSON, nullable=False),
        sa.Column("shown_at", UtcDateTime, nullable=False),
        sa.Column("submitted_at", UtcDateTime, nullable=False),
        sa.Column("time_on_task_ms", sa.Integer),
        sa.Column("lease_late", sa.Boolean, nullable=False),
        sa.Column("input_mode", sa.String(20)),
        sa.Column("session_id", sa.String(200)),
        sa.Column("app_version", sa.String(200)),
        sa.Column("guideline_version", sa.String(200)),
        sa.PrimaryKeyConstraint("sequence", name="pk_labels"),
        sa.UniqueConstraint("label_id", name="uq_labels_label_id"),
        sa.UniqueConstraint("submission_id", name="uq_labels_submission_id"),
        sa.UniqueConstraint(
            "task_id", "rater_id", "revision", name="uq_labels_task_id_rater_id_revision"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_labels_task_id"),
        sa.ForeignKeyConstraint(["rater_id"], ["raters.rater_id"], name="fk_labels_rater_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_labels_rater_id_is_live", "labels", ["rater_id", "is_live"])
    live = sa.text("is_live")
    op.create_index(
        "ix_labels_one_live",
        "labels",
        ["task_id", "rater_id"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
