from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from data.errors import PictuneError
from data.feedback import NewTask
from data.kinds.verdict import BinaryAnswer
from data.store.imported import ImportedLabel
from data.store.tables import metadata
from tests.support.data_campaign import (
    answer_all,
    binary_tasks,
    drop_columns,
    go_back_to_0003,
    open_store,
)


def test_migrations_lead_to_the_tables_that_the_code_describes(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.add_tasks(binary_tasks(2))
    with open_store(tmp_path) as store:
        assert store.progress().total == 2


def test_labels_of_the_first_version_stay_as_they_were(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.add_tasks(binary_tasks(2))
        answer_all(store, store.add_rater("anna"))
        with store.database.write() as connection:
            _go_back(connection, "0001")
            before = (
                connection.execute(sa.text("SELECT * FROM labels ORDER BY sequence"))
                .mappings()
                .all()
            )
    with open_store(tmp_path) as store, store.database.read() as connection:
        after = (
            connection.execute(sa.text("SELECT * FROM labels ORDER BY sequence")).mappings().all()
        )
        assert [dict(row) for row in after] == [
            dict(row) | {"active_ms": None, "wording": None, "outcome": "good", "has_comment": 0}
            for row in before
        ]
        assert len(after) == 2
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert store.raters.find("anna")


def test_places_that_simulated_raters_had_taken_become_peoples_again(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.add_tasks(binary_tasks(2))
        answer_all(store, store.add_rater("robot", source="simulated"))
        with store.database.write() as connection:
            connection.execute(sa.text("UPDATE tasks SET n_live = n_simulated"))
            _go_back(connection, "0001")
    with open_store(tmp_path) as store:
        assert (store.progress().done, store.progress(source="simulated").done) == (0, 2)
        assert len(answer_all(store, store.add_rater("anna"))) == 2


def test_images_that_were_reported_before_are_out_of_circulation(tmp_path: Path) -> None:
    answers = {
        "image0": "good",
        "image1": "unsafe",
        "image2": "skip",
        "image3": "unsafe",
        "image4": "unsafe",
    }
    with open_store(tmp_path) as store:
        known = {"gold": BinaryAnswer(verdict="unsafe"), "gold_source": "us"}
        gold = NewTask.model_validate(dict(binary_tasks(5)[4]) | known)
        tasks = [*binary_tasks(4, overlap=2), gold]
        given = [_imported(task, answers[task.image_ids[0]]) for task in tasks]
        store.import_labels(tasks, given, finish=lambda: None)
        store.undo(store.rater_id_of("human", "image3"))
        with store.database.write() as connection:
            _go_back(connection, "0003")
    with open_store(tmp_path) as store:
        (image,) = store.reports.images()
        assert (image.image_id, [one.rater for one in image.reports]) == ("image1", ["image1"])
        claim = store.claim(store.add_rater("ben"))
        assert claim is not None
        assert claim.task.image_ids != ("image1",)
        assert store.progress().total == 7


def _imported(task: NewTask, verdict: str) -> ImportedLabel:
    answer = BinaryAnswer.model_validate(
        {"verdict": verdict, "reason": "It says unsafe here, too."}
    )
    (image_id,) = task.image_ids
    return ImportedLabel(
        submission_id=image_id,
        rater=image_id,
        source="human",
        task=task,
        answer=answer,
        shown_order=(0,),
    )


def _go_back(connection: sa.Connection, version: str) -> None:
    """Remove what later versions added, as no user can."""
    go_back_to_0003(connection)
    if version == "0003":
        return
    connection.execute(
        sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version}
    )
    for index in ("ix_tasks_gold", "ix_tasks_repeat_of"):
        connection.execute(sa.text(f"DROP INDEX {index}"))
    added = {
        "raters": ("role", "password_hash", "status", "resumed_at"),
        "labels": ("active_ms",),
        "tasks": ("gold_source", "repeat_of"),
    }
    drop_columns(connection, added)
    connection.execute(sa.text("DROP TABLE training_answers"))


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
