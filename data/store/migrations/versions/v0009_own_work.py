"""Tasks that raters put aside, and an index for the pace of each rater."""

import sqlalchemy as sa
from alembic import op

from data.store.tables import UtcDateTime

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add a column, which is empty for what was there before, and two indexes."""
    op.add_column("leases", sa.Column("aside_at", UtcDateTime))
    aside = sa.text("aside_at IS NOT NULL")
    op.create_index(
        "ix_leases_aside", "leases", ["rater_id"], sqlite_where=aside, postgresql_where=aside
    )
    op.create_index("ix_labels_rater_id_submitted_at", "labels", ["rater_id", "submitted_at"])
