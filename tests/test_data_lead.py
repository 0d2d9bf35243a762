"""Actions of admins in the store, on SQLite and PostgreSQL: adjudication, plan, trail."""

import random
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from data.feedback import NewTask, NotFound
from data.kinds.kind import InvalidAnswer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.plan.planning import task_id_of
from data.store.tables import labels
from data.store.views.overview import active_times, labels_by_hour, labels_of_tasks, latest_labels
from data.store.views.rows import label_table, rater_facts, task_facts, task_table
from tests.support.data_campaign import (
    START,
    Clock,
    answer_all,
    binary_tasks,
    claimed,
    count_reported,
    given_elsewhere,
    submission,
)

GOOD, BAD = BinaryAnswer(verdict="good"), BinaryAnswer(verdict="bad")


@pytest.fixture
def store(store_url: str, clock: Clock) -> Iterator[FeedbackStore]:
    with FeedbackStore.open(store_url, clock=clock, rng=random.Random(0)) as opened:
        yield opened


@pytest.fixture
def boss(store: FeedbackStore) -> str:
    rater_id = store.add_rater("Boss")
    store.raters.set_role(rater_id, "admin")
    return rater_id


def disagree(store: FeedbackStore) -> NewTask:
    """Let Ann and Ben disagree on one task of overlap 3; return it."""
    (task,) = binary_tasks(1, overlap=3)
    store.add_tasks([task])
    for name, answer in (("Ann", GOOD), ("Ben", BAD)):
        rater_id = store.add_rater(name)
        store.submit(submission(claimed(store, rater_id), rater_id, name, answer))
    return task


def answers(store: FeedbackStore, task: NewTask) -> dict[tuple[str, str], object]:
    given = labels_of_tasks(store, [task_id_of(task)])
    return {(one.source, one.rater): one.answer for one in given}


def test_an_adjudication_is_a_further_label_that_takes_nobodys_place(
    store: FeedbackStore, boss: str
) -> None:
    task = disagree(store)
    store.submit(submission(claimed(store, boss), boss, "own", GOOD))
    before = store.progress()
    store.adjudications.decide(task_id_of(task), BAD, boss)
    human = {("human", "Ann"): GOOD, ("human", "Ben"): BAD, ("human", "Boss"): GOOD}
    assert answers(store, task) == human | {("adjudicator", "Boss"): BAD}
    assert store.progress() == before
    assert store.adjudications.task_ids() == {task_id_of(task)}
    assert [one.answer for one in latest_labels(store, rater_id=boss, limit=9)] == [GOOD]
    assert store.undo(boss) is not None  # the own answer, not the adjudication
    assert answers(store, task)["adjudicator", "Boss"] == BAD
    assert store.claim(store.add_rater("Cleo")) is None  # the boss holds the third place again


def test_another_adjudication_takes_the_place_of_the_first_and_both_stay_in_the_log(
    store: FeedbackStore, boss: str
) -> None:
    task = disagree(store)
    task_id = task_id_of(task)
    store.adjudications.decide(task_id, BinaryAnswer(verdict="unsafe"), boss)
    assert count_reported(store) == (1, 0)
    store.adjudications.decide(task_id, BAD, store.add_rater("Chief"))
    assert count_reported(store) == (0, 0)
    assert answers(store, task)["adjudicator", "Chief"] == BAD
    assert ("adjudicator", "Boss") not in answers(store, task)
    assert store.adjudications.decide(task_id, GOOD, boss).revision == 2
    store.adjudications.withdraw(task_id, boss)
    assert store.adjudications.task_ids() == set()
    with store.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(labels)) == 2 + 4
    with pytest.raises(NotFound, match="nobody has decided it"):
        store.adjudications.withdraw(task_id, boss)


def test_an_adjudication_must_fit_its_task(store: FeedbackStore, boss: str) -> None:
    task = disagree(store)
    with pytest.raises(InvalidAnswer):
        store.adjudications.decide(task_id_of(task), RankingAnswer(ranks={"image0": 1}), boss)
    with pytest.raises(NotFound):
        store.adjudications.decide("nothing", GOOD, boss)
    assert store.audit.latest(1)[0].action == "set_role"  # refused ones leave no trace


def test_imported_adjudications_take_no_place_and_can_be_decided_again(
    store: FeedbackStore, boss: str
) -> None:
    (task,) = binary_tasks(1, overlap=2)
    imported = [given_elsewhere(name, task, GOOD, "adjudicator") for name in ("one", "other")]
    store.import_labels([task], imported, finish=lambda: None)
    assert (store.progress().done, store.progress(source="simulated").done) == (0, 0)
    store.adjudications.decide(task_id_of(task), BAD, boss)
    assert answers(store, task) == {("adjudicator", "Boss"): BAD}


def test_labels_of_a_rater_who_is_left_out_count_for_nothing_until_the_rater_is_back(
    store: FeedbackStore, boss: str
) -> None:
    store.add_tasks(binary_tasks(2))
    ann, ben = store.add_rater("Ann"), store.add_rater("Ben")
    given = {receipt.label_id for receipt in answer_all(store, ann)}
    assert store.claim(ben) is None

    def exported() -> set[str]:
        with store.database.read() as connection:
            facts = task_facts(task_table(connection))
            raters = rater_facts(connection, store.public_rater_id)
            return set(label_table(connection, "binary", facts, raters)["label_id"].to_pylist())

    store.raters.set_status(ann, "left_out", by=boss)
    assert exported() == set()
    claim = store.claim(ben)
    assert claim is not None
    others = store.submit(submission(claim, ben, "other", BAD)).label_id
    assert exported() == {others}
    assert len(latest_labels(store, limit=9)) == 3  # none is lost
    # an answer that comes late counts for nothing either
    store.undo(ann)
    store.submit(submission(claimed(store, ann), ann, "late", GOOD))
    assert store.progress().done == 1
    store.raters.set_status(ann, "active", by=boss)
    assert len(exported()) == 3
    assert given & exported()
    assert store.progress().done == 2
    assert store.claim(ben) is None
    trail = [(one.subject, one.after) for one in store.audit.latest(2)]
    assert trail == [("Ann", {"status": "active"}), ("Ann", {"status": "left_out"})]


def test_every_action_of_an_admin_is_in_the_trail(store: FeedbackStore, clock: Clock) -> None:
    boss = store.add_rater("Boss")
    ann = store.add_rater("Ann", by=boss)
    store.raters.set_password(ann, "hash", by=boss)
    store.raters.set_role(ann, "admin", by=boss)
    store.raters.set_role(ann, "admin", by=boss)  # changes nothing
    clock.pass_seconds(60)
    store.raters.set_status(ann, "paused")
    store.set_paused(True, by=boss)
    trail = store.audit.latest(20)
    assert [(one.actor, one.action, one.subject) for one in reversed(trail)] == [
        ("Boss", "add_rater", "Ann"),
        ("Boss", "set_password", "Ann"),
        ("Boss", "set_role", "Ann"),
        (None, "set_status", "Ann"),
        ("Boss", "set_paused", None),
    ]
    assert (trail[2].before, trail[2].after) == ({"role": "rater"}, {"role": "admin"})
    assert (trail[3].before, trail[4].after) == (None, None)  # a hash of a password is in no trail
    assert (trail[1].at - START).total_seconds() == 60
    assert len(store.audit.latest(2)) == 2


def test_labels_are_counted_by_the_hour_of_the_clock(store: FeedbackStore, clock: Clock) -> None:
    store.add_tasks(binary_tasks(3, overlap=2))
    ann = store.add_rater("Ann")
    for number, seconds in enumerate((3599.9, 0.2, 3600)):
        clock.pass_seconds(seconds)
        store.submit(submission(claimed(store, ann), ann, str(number)))
    answer_all(store, store.add_rater("robot", source="simulated"))
    counts = labels_by_hour(store, START)
    assert {hour.hour: count for hour, count in counts.items()} == {0: 1, 1: 1, 2: 1}


def test_active_times_are_means_of_kinds_with_enough_labels_by_people(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(21))
    ann, robot = store.add_rater("Ann"), store.add_rater("robot", source="simulated")
    for number in range(21):
        for rater, ms in ((robot, 7), (ann, 1000 * number)):
            given = submission(claimed(store, rater), rater, f"{rater} {number}")
            store.submit(given.model_copy(update={"active_ms": ms}))
        assert active_times(store) == ({"binary": 500.0 * number} if number >= 19 else {})
