from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from data.errors import PictuneError
from data.store.tables import metadata
from tests.support.data_campaign import binary_tasks, open_store


def test_migrations_lead_to_the_tables_that_the_code_describes(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.add_tasks(binary_tasks(2))
    with open_store(tmp_path) as store:
        assert store.progress().total == 2


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        PictuneError, match=r"feedback\.db: written by a newer version .* update Pictune"
    ):
        open_store(tmp_path)


def test_a_label_has_at_most_one_live_revision(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.database.read() as connection:
        indexes = {index["name"]: index for index in sa.inspect(connection).get_indexes("labels")}
    assert indexes["ix_labels_one_live"]["unique"]
