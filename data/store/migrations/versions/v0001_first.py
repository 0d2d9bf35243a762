"""The first tables: the revision of a new store, which `Database.migrate` creates whole."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Change nothing."""
