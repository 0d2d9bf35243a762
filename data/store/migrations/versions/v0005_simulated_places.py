"""Places of their own for simulated raters.

Their labels are counted beside people's, and imported labels in both.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column and count again; labels stay as they are."""
    op.add_column("tasks", sa.Column("n_simulated", sa.Integer, nullable=False, server_default="0"))
    op.execute(
        """
        UPDATE tasks SET (n_live, n_simulated) = (
            SELECT count(CASE WHEN raters.source <> 'simulated' THEN 1 END),
                count(CASE WHEN raters.source <> 'human' THEN 1 END)
            FROM labels JOIN raters ON raters.rater_id = labels.rater_id
            WHERE labels.task_id = tasks.task_id AND labels.is_live
        )
        """
    )
    unfinished = sa.text("n_simulated < overlap")
    op.create_index(
        "ix_tasks_simulated",
        "tasks",
        [sa.text("priority DESC"), "order_key"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
