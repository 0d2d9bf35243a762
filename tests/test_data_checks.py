import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from data.feedback import ChecksConfig, NewTask
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels, leases, task_images, tasks
from data.store.views.overview import counts_by_category, gold_record
from tests.support.data_campaign import Clock, binary_tasks, submission

GOLD = BinaryAnswer(verdict="good")
GOLD_JSON = GOLD.model_dump_json()


def gold_tasks(count: int) -> list[NewTask]:
    changes = {"gold": GOLD, "gold_source": "gold.csv"}
    return [
        task.model_copy(update=changes | {"image_ids": (f"gold{number}",)})
        for number, task in enumerate(binary_tasks(count, overlap=100))
    ]


def open_checking(folder: Path, **shares: float) -> FeedbackStore:
    url = f"sqlite:///{folder / 'feedback.db'}"
    return FeedbackStore.open(
        url, clock=Clock(), rng=random.Random(0), checks=ChecksConfig(**shares)
    )


@pytest.fixture
def checking(tmp_path: Path) -> Iterator[FeedbackStore]:
    with open_checking(tmp_path, gold_share=0.2, repeat_share=0.2) as store:
        yield store


def work(store: FeedbackStore, rater: str) -> list[str]:
    """Answers all that the rater is given; returns the task ids in their order."""
    given: list[str] = []
    while (claim := store.claim(rater)) is not None:
        given.append(claim.task.task_id)
        store.submit(submission(claim, rater, f"{rater}-{len(given)}"))
    return given


def test_gold_comes_in_between_at_its_share_and_is_nobodys_progress(
    checking: FeedbackStore,
) -> None:
    ann, ben = checking.add_rater("ann"), checking.add_rater("ben")
    checking.add_tasks(gold_tasks(30))
    assert checking.claim(ann) is None  # gold alone is no work
    checking.add_tasks([*binary_tasks(60, overlap=2), *gold_tasks(30)])
    given = [work(checking, rater) for rater in (ann, ben)]
    assert all(len(ids) == len(set(ids)) for ids in given)
    records = [gold_record(checking, rater) for rater in (ann, ben)]
    assert all(5 <= len(record) <= 30 and all(record) for record in records)
    assert (checking.progress().done, checking.progress().total) == (120, 120)
    assert [(count.done, count.total) for count in counts_by_category(checking, {})] == [(120, 120)]


def test_a_planned_task_becomes_gold_and_an_ordinary_one_again(checking: FeedbackStore) -> None:
    plain, other = binary_tasks(2)
    changes = {"gold": GOLD, "gold_source": "gold.csv", "overlap": 100}
    gold, other_gold = plain.model_copy(update=changes), other.model_copy(update=changes)
    renamed = other.model_copy(update=changes | {"gold_source": "renamed.csv"})
    known = plain.model_copy(update={"gold": GOLD})  # but no check, as it has no source
    query = (
        sa.select(tasks.c.gold_json, tasks.c.gold_source, tasks.c.overlap)
        .join(task_images)
        .where(task_images.c.image_id == "image0")
    )
    for plan, expected in (
        ([plain, other], (None, None, 1)),
        ([plain, other, gold], (GOLD_JSON, "gold.csv", 100)),
        ([plain, other], (None, None, 1)),  # the file is not named any more
        ([plain, other, gold], (GOLD_JSON, "gold.csv", 100)),
        ([plain, other_gold], (None, None, 1)),  # the row is gone
        ([plain, other, gold], (GOLD_JSON, "gold.csv", 100)),
        ([plain, renamed], (None, None, 1)),
        ([known, other_gold], (None, None, 1)),
    ):
        checking.add_tasks(plan)
        with checking.database.read() as connection:
            assert tuple(connection.execute(query).one()) == expected


def test_gold_of_an_import_stays_whatever_the_plan_names(checking: FeedbackStore) -> None:
    (plain,) = binary_tasks(1)
    gold = plain.model_copy(update={"gold": GOLD, "gold_source": "theirs.csv", "overlap": 100})
    checking.import_labels([gold], [], finish=lambda: None)
    for _ in range(2):
        checking.add_tasks([plain])
        with checking.database.read() as connection:
            row = connection.execute(sa.select(tasks)).one()
        assert (row.gold_json, row.gold_source, row.overlap) == (GOLD_JSON, "theirs.csv", 100)


def test_a_changed_overlap_is_taken_over_and_no_label_is_lost(checking: FeedbackStore) -> None:
    checking.add_tasks(binary_tasks(2, overlap=1))
    ann, ben = checking.add_rater("ann"), checking.add_rater("ben")
    assert (len(work(checking, ann)), len(work(checking, ben))) == (2, 0)
    checking.add_tasks(binary_tasks(2, overlap=2))
    assert checking.progress().total == 4
    assert len(work(checking, ben)) == 2
    checking.add_tasks(binary_tasks(2, overlap=1))
    progress = checking.progress(ben)
    assert (progress.done, progress.total, progress.mine) == (2, 2, 2)


def test_a_repeat_asks_the_same_rater_once_more_in_mirrored_order(tmp_path: Path) -> None:
    with open_checking(tmp_path, repeat_share=0.3) as store:
        store.add_tasks(
            NewTask(kind="ranking", prompt="a cat", image_ids=(f"{number}", "a", "b"), overlap=2)
            for number in range(40)
        )
        raters = [store.add_rater("ann"), store.add_rater("ben")]
        for rater in raters:
            work(store, rater)
        with store.database.read() as connection:
            repeat_of = dict(
                map(tuple, connection.execute(sa.select(tasks.c.task_id, tasks.c.repeat_of)))
            )
            shown = {
                (row.task_id, row.rater_id): row.shown_order
                for row in connection.execute(sa.select(leases))
            }
            in_order = sa.select(labels.c.task_id, labels.c.rater_id).order_by(labels.c.sequence)
            given = list(map(tuple, connection.execute(in_order)))
        assert (store.progress().done, store.progress().total) == (80, 80)
        again = [(task_id, rater_id) for task_id, rater_id in given if repeat_of[task_id]]
        assert 10 <= len(again) <= 40
        assert max(Counter(again).values()) == 1
        for task_id, rater_id in again:
            first = (repeat_of[task_id], rater_id)
            assert shown[task_id, rater_id] == [2 - place for place in shown[first]]
            mine = [key for key in given if key[1] == rater_id]
            assert mine.index((task_id, rater_id)) - mine.index(first) > 10


def test_without_shares_a_campaign_has_no_checks(tmp_path: Path) -> None:
    with open_checking(tmp_path) as store:
        store.add_tasks([*binary_tasks(20), *gold_tasks(5)])
        assert len(work(store, store.add_rater("ann"))) == 20
