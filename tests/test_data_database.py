"""The feedback store on disk: its URL and files, its transactions, what it keeps when closed."""

import os
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from data.errors import PictuneError
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels
from tests.support.data_campaign import (
    binary_tasks,
    claimed,
    open_store,
    submission,
)


def test_a_store_keeps_its_salt_and_order_when_opened_again(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        rater = store.add_rater("anna")
        public = store.public_rater_id(rater)
    url = f"sqlite:///{tmp_path / 'labels' / 'feedback.db'}"
    with FeedbackStore.open(url, rng=random.Random(99)) as again:
        assert again.add_rater("anna") == rater
        assert again.public_rater_id(rater) == public


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        PictuneError, match=r"feedback\.db: written by a newer version .* update Pictune"
    ):
        open_store(tmp_path)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("nonsense", "not a database URL"),
        ("sqlite://", "labels in memory"),
        ("sqlite:////proc/none/feedback.db", "choose a folder"),
    ],
)
def test_a_url_that_cannot_work_says_what_to_do(url: str, fault: str) -> None:
    with pytest.raises(PictuneError, match=fault):
        FeedbackStore.open(url)


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "feedback.db").write_bytes(
        b"not a database, but long enough to be taken for one" * 100
    )
    with pytest.raises(
        PictuneError, match=r"feedback\.db: file is not a database; nothing was saved"
    ):
        FeedbackStore.open(f"sqlite:///{tmp_path / 'feedback.db'}")


def test_every_commit_waits_for_the_disk(store: FeedbackStore) -> None:
    expected = {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}
    with store.database.read() as connection:
        for name, value in expected.items():
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value


def test_the_database_refuses_a_second_live_answer_of_a_rater_to_a_task(
    store: FeedbackStore,
) -> None:
    store.add_tasks(binary_tasks(1))
    rater = store.add_rater("anna")
    claim = claimed(store, rater)
    for name in ("first", "second"):
        store.submit(submission(claim, rater, name))
    with (
        pytest.raises(PictuneError, match="UNIQUE constraint failed"),
        store.database.write() as connection,
    ):
        connection.execute(sa.update(labels).values(is_live=True))


def test_calls_within_one_transaction_are_saved_together_or_not_at_all(
    store: FeedbackStore,
) -> None:
    store.add_tasks(binary_tasks(2))
    rater = store.add_rater("anna")

    def fail_at_the_end() -> None:
        with store.database.write():
            store.submit(submission(claimed(store, rater), rater, "first"))
            assert store.progress(rater).mine == 1
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail_at_the_end()
    assert store.progress(rater).mine == 0
    with store.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(labels)) == 0
    with store.database.write():
        store.submit(submission(claimed(store, rater), rater, "first"))
        with ThreadPoolExecutor(1) as other:  # other threads see nothing of it before it is saved
            assert other.submit(store.progress, rater).result().mine == 0
    assert store.progress(rater).mine == 1


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_the_files_of_the_store_are_for_their_owner_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with open_store(tmp_path) as store:
            store.add_tasks(binary_tasks(1))
            assert _modes(tmp_path) == {
                "feedback.db": 0o600,
                "feedback.db-wal": 0o600,
                "feedback.db-shm": 0o600,
            }
            for path in (tmp_path / "labels").iterdir():  # as other tools may leave them
                path.chmod(0o644)
            with open_store(tmp_path) as again:
                assert set(_modes(tmp_path).values()) == {0o600}
                assert again.progress().total == 1
                again.add_tasks(binary_tasks(2))
            assert store.progress().total == 2
    finally:
        os.umask(before)


def _modes(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in (root / "labels").iterdir()}


def test_reading_does_not_wait_for_a_writer(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(1))
    writer = sqlite3.connect(str(store.database.engine.url.database), isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert store.progress().total == 1
    writer.execute("ROLLBACK")
    writer.close()
