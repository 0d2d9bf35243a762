"""The moment when a rater was last let go on: gold answered before does not pause them again."""

import sqlalchemy as sa
from alembic import op

from data.store.tables import UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, which leaves every row where it is."""
    op.add_column("raters", sa.Column("resumed_at", UtcDateTime))
