"""Trail of what admins do, shares of raters, and an index for labels per hour."""

import sqlalchemy as sa
from alembic import op

from data.store.tables import UtcDateTime

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add a column, an index and a table; every row stays as it is."""
    op.add_column("raters", sa.Column("share", sa.Double))
    op.create_index("ix_labels_submitted_at", "labels", ["submitted_at"])
    op.create_table(
        "audit",
        sa.Column(
            "sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True
        ),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("actor_id", sa.String(36)),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(200)),
        sa.Column("before_json", sa.Text),
        sa.Column("after_json", sa.Text),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit"),
        sa.ForeignKeyConstraint(["actor_id"], ["raters.rater_id"], name="fk_audit_actor_id"),
        sqlite_autoincrement=True,
    )
