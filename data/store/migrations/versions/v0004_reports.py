"""Reports of images that nobody should be shown; reports in earlier labels become open ones."""

import json

import sqlalchemy as sa
from alembic import op

from data.store.tables import UtcDateTime

revision = "0004"
down_revision = "0003"

EARLIER_REPORTS = """
    SELECT labels.label_id, labels.answer_json, task_images.image_id,
        tasks.gold_source, tasks.gold_json
    FROM labels
    JOIN tasks ON tasks.task_id = labels.task_id
    JOIN task_images ON task_images.task_id = labels.task_id
    WHERE labels.is_live AND labels.kind = 'binary' AND labels.answer_json LIKE '%unsafe%'
"""


def upgrade() -> None:
    """Create the table, which leaves every row elsewhere where it is."""
    reports = op.create_table(
        "reports",
        sa.Column("label_id", sa.String(36), nullable=False),
        sa.Column("image_id", sa.String(200), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("decided_by", sa.String(36)),
        sa.Column("decided_at", UtcDateTime),
        sa.PrimaryKeyConstraint("label_id", "image_id", name="pk_reports"),
        sa.ForeignKeyConstraint(["label_id"], ["labels.label_id"], name="fk_reports_label_id"),
        sa.ForeignKeyConstraint(["decided_by"], ["raters.rater_id"], name="fk_reports_decided_by"),
    )
    op.create_index("ix_reports_image_id", "reports", ["image_id"])
    rows = op.get_bind().execute(sa.text(EARLIER_REPORTS)).all()
    made = [
        {"label_id": row.label_id, "image_id": row.image_id, "state": "open"}
        for row in rows
        if _is_unsafe(row.answer_json) and not (row.gold_source and _is_unsafe(row.gold_json))
    ]
    if made:
        op.bulk_insert(reports, made)


def _is_unsafe(answer_json: str) -> bool:
    return bool(json.loads(answer_json)["verdict"] == "unsafe")
