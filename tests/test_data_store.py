"""Tasks, claims, answers and undos in the feedback store."""

import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa

from data.feedback import NewTask, NotFound, Progress
from data.kinds.kind import InvalidAnswer
from data.kinds.ranking import RankingAnswer
from data.kinds.registry import TaskKind
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels, raters
from data.store.views.progress import LARGE_CAMPAIGN, Totals, count_totals
from tests.support.data_campaign import (
    START,
    Clock,
    answer_all,
    binary_tasks,
    claimed,
    given_elsewhere,
    submission,
)


def revisions(store: FeedbackStore) -> list[tuple[int, bool, bool]]:
    """(revision, is live, has an answer) of every label row."""
    with store.database.read() as connection:
        rows = connection.execute(sa.select(labels).order_by(labels.c.sequence)).all()
    return [(row.revision, row.is_live, row.answer_json is not None) for row in rows]


def test_a_rater_is_added_once_for_each_name_and_source(store: FeedbackStore) -> None:
    assert store.add_rater("anna") == store.add_rater(" anna ")
    assert store.add_rater("anna", source="simulated") != store.add_rater("anna")


def test_names_that_differ_in_case_and_spaces_alone_are_one_person(store: FeedbackStore) -> None:
    ann = store.add_rater("Ann Álvarez")
    composed_otherwise = unicodedata.normalize("NFD", "ANN  álvarez")
    assert [
        store.add_rater(name) for name in ("ann álvarez", composed_otherwise, "Ann Álvarez")
    ] == [ann] * 3
    found = store.raters.find("ANN ÁLVAREZ")
    assert found is not None
    assert (found.rater_id, found.name) == (ann, "Ann Álvarez")
    assert store.add_rater("ann álvarez", source="imported") != ann


def test_a_store_with_two_spellings_of_a_name_keeps_both_raters(store: FeedbackStore) -> None:
    ids = {name: store.rater_id_of("human", name) for name in ("ann", "ANN")}
    with store.database.write() as connection:
        for name, rater_id in ids.items():
            row = {"rater_id": rater_id, "name": name, "source": "human", "joined_at": START}
            connection.execute(sa.insert(raters).values(row))
    assert {name: store.add_rater(name) for name in ids} == ids
    assert store.raters.find("Ann") is None


def test_planning_again_adds_only_what_is_new(store: FeedbackStore) -> None:
    assert store.add_tasks(binary_tasks(3)) == 3
    assert store.add_tasks(binary_tasks(5)) == 2
    assert store.add_tasks([NewTask(kind="ranking", prompt="a cat", image_ids=("a", "b"))]) == 1
    assert store.add_tasks([NewTask(kind="ranking", prompt="a cat", image_ids=("b", "a"))]) == 0
    assert store.progress() == Progress(mine=0, done=0, total=6, hold=3)


def test_the_urgent_come_first_and_the_rest_in_an_order_of_their_own(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(20))
    store.add_tasks([NewTask(kind="binary", prompt="a dog", image_ids=("urgent",), priority=1)])
    rater = store.add_rater("anna")
    order = []
    while (claim := store.claim(rater)) is not None:
        order.append(claim.task.image_ids[0])
        store.submit(submission(claim, rater, str(len(order))))
    assert order[0] == "urgent"
    assert len(set(order)) == 21
    assert order[1:] != [f"image{number}" for number in range(20)]


def test_the_shown_order_varies_between_raters_and_is_kept_for_one(store: FeedbackStore) -> None:
    ranking = NewTask(kind="ranking", prompt="a cat", image_ids=tuple("abcdef"), overlap=10)
    store.add_tasks([ranking])
    claims = [claimed(store, store.add_rater(f"rater{number}")) for number in range(5)]
    assert all(sorted(claim.shown_order) == list(range(6)) for claim in claims)
    assert len({claim.shown_order for claim in claims}) > 1
    again = claimed(store, store.add_rater("rater0"))
    assert (again.shown_order, again.shown_at) == (claims[0].shown_order, claims[0].shown_at)
    assert again.task.image_ids == ranking.image_ids


def test_a_place_becomes_free_when_its_lease_runs_out(store: FeedbackStore, clock: Clock) -> None:
    store.add_tasks(binary_tasks(1))
    anna, ben = store.add_rater("anna"), store.add_rater("ben")
    held = claimed(store, anna)
    assert store.claim(ben) is None
    clock.pass_seconds(299)
    assert store.renew(anna, held.task.task_id) > held.lease_expires_at
    clock.pass_seconds(300 - 1e-6)
    assert store.claim(ben) is None
    clock.pass_seconds(1e-6)  # the very moment that the lease names
    assert claimed(store, ben).task == held.task
    with pytest.raises(NotFound, match="others have taken the place"):
        store.renew(anna, held.task.task_id)


def test_the_same_submission_again_gives_the_same_receipt(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(2))
    rater = store.add_rater("anna")
    sent = submission(claimed(store, rater), rater, "once")
    first, second = store.submit(sent), store.submit(sent)
    assert first.created
    assert not second.created
    assert (first.label_id, first.revision) == (second.label_id, second.revision)
    assert revisions(store) == [(1, True, True)]
    with pytest.raises(InvalidAnswer, match="used for another task"):
        store.submit(submission(claimed(store, rater), rater, "once"))


def test_a_late_answer_is_accepted_and_flagged(store: FeedbackStore, clock: Clock) -> None:
    store.add_tasks(binary_tasks(1))
    anna, ben = store.add_rater("anna"), store.add_rater("ben")
    late = claimed(store, anna)
    clock.pass_seconds(301)
    timely = claimed(store, ben)
    assert store.submit(submission(late, anna, "late")).created
    assert store.submit(submission(timely, ben, "timely")).created
    clock.pass_seconds(301)
    store.submit(submission(timely, ben, "edit"))  # of an answer that came in time
    with store.database.read() as connection:
        flags = connection.execute(sa.select(labels.c.submission_id, labels.c.lease_late)).all()
    assert {tuple(row) for row in flags} == {("late", True), ("timely", False), ("edit", False)}
    assert store.progress(anna) == Progress(mine=1, done=1, total=1)


def test_undo_takes_back_the_last_label_and_gives_the_task_again(
    store: FeedbackStore, clock: Clock
) -> None:
    store.add_tasks(binary_tasks(3))
    rater = store.add_rater("anna")
    assert store.undo(rater) is None
    first, second = claimed(store, rater), None
    store.submit(submission(first, rater, "first"))
    second = claimed(store, rater)
    store.submit(submission(second, rater, "second"))
    on_screen = claimed(store, rater)
    clock.pass_seconds(1)
    assert store.undo(rater) == second.task
    assert claimed(store, rater).task == second.task
    assert store.progress(rater) == Progress(mine=1, done=1, total=3)
    assert store.undo(rater) == first.task
    assert store.undo(rater) is None
    assert revisions(store) == [(1, False, True)] * 2 + [(2, False, False)] * 2
    receipts = answer_all(store, rater)
    assert sorted(receipt.revision for receipt in receipts) == [1, 3, 3]
    assert on_screen.task.task_id not in (first.task.task_id, second.task.task_id)


def test_no_submission_of_a_client_stands_in_the_way_of_an_undo(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(2))
    rater = store.add_rater("anna")
    first = claimed(store, rater)
    receipt = store.submit(submission(first, rater, "first"))
    store.submit(submission(first, rater, f"undo-{receipt.label_id}"))
    edited = store.submit(submission(first, rater, "third"))
    store.submit(submission(claimed(store, rater), rater, f"undo-{edited.label_id}"))
    assert store.undo(rater) is not None
    assert store.undo(rater) == first.task
    assert store.undo(rater) is None


def test_answers_that_do_not_fit_are_refused(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(1))
    anna, ben = store.add_rater("anna"), store.add_rater("ben")
    claim = claimed(store, anna)
    with pytest.raises(InvalidAnswer, match="a ranking answer to a binary task"):
        store.submit(submission(claim, anna, "s", RankingAnswer(ranks={"image0": 1})))
    with pytest.raises(InvalidAnswer, match="was never given to this rater"):
        store.submit(submission(claim, ben, "s"))
    with pytest.raises(NotFound, match="task nowhere: not known"):
        store.submit(submission(claim, anna, "s").model_copy(update={"task_id": "nowhere"}))
    for ask in (store.claim, store.undo):
        with pytest.raises(NotFound, match="rater nobody: not known"):
            ask("nobody")
    assert revisions(store) == []


def test_progress_goes_on_when_the_clock_is_set_back(store: FeedbackStore, clock: Clock) -> None:
    store.add_tasks(binary_tasks(LARGE_CAMPAIGN + 1))
    rater = store.add_rater("anna")
    assert store.progress().done == 0
    clock.pass_seconds(-3600)
    store.submit(submission(claimed(store, rater), rater, "first"))
    assert store.progress().done == 1


def test_progress_of_a_large_campaign_is_counted_by_one_and_meanwhile_old_for_others(
    store: FeedbackStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_tasks(binary_tasks(LARGE_CAMPAIGN + 1))
    rater = store.add_rater("anna")
    assert store.progress().done == 0
    store.submit(submission(claimed(store, rater), rater, "first"))
    assert store.progress().done == 0
    assert store.progress(newest=True).done == 1
    store.submit(submission(claimed(store, rater), rater, "second"))
    clock.pass_seconds(1)
    counting, going_on = Event(), Event()

    def slowly(*given: Any) -> Totals:
        counting.set()
        going_on.wait()
        return count_totals(*given)

    monkeypatch.setattr("data.store.views.progress.count_totals", slowly)
    with ThreadPoolExecutor(1) as pool:
        counted = pool.submit(store.progress)
        counting.wait()
        assert store.progress().done == 1
        going_on.set()
        assert counted.result().done == 2
    assert store.progress().done == 2


@pytest.mark.parametrize(("n_tasks", "seconds"), [(LARGE_CAMPAIGN + 1, 1), (1_000_000, 20)])
def test_progress_may_be_older_the_longer_it_takes_to_count(n_tasks: int, seconds: int) -> None:
    totals = Totals(START, n_tasks, 0, n_tasks, 0)
    assert totals.is_fresh(START + timedelta(seconds=seconds - 0.1))
    assert not totals.is_fresh(START + timedelta(seconds=seconds))


def test_people_and_simulated_raters_have_places_of_their_own(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(2, overlap=1))
    robot = store.add_rater("robot", source="simulated")
    anna, ben = store.add_rater("anna"), store.add_rater("ben")
    assert len(answer_all(store, robot)) == 2
    assert answer_all(store, store.add_rater("another robot", source="simulated")) == []
    assert (store.progress().done, store.progress(source="simulated").done) == (0, 2)
    held = claimed(store, anna)
    assert claimed(store, ben).task != held.task
    assert len(answer_all(store, anna)) == len(answer_all(store, ben)) == 1
    assert (store.progress().done, store.progress(source="simulated").done) == (2, 2)
    assert store.undo(anna) == held.task
    assert (store.progress().done, store.progress(source="simulated").done) == (1, 2)


def test_imported_labels_fill_places_of_people_and_of_simulated_raters(
    store: FeedbackStore,
) -> None:
    (task,) = binary_tasks(1)
    given = given_elsewhere("theirs", task, BinaryAnswer(verdict="good"))
    store.import_labels([task], [given], finish=lambda: None)
    assert store.claim(store.add_rater("anna")) is None
    assert store.claim(store.add_rater("robot", source="simulated")) is None
    assert (store.progress().done, store.progress(source="simulated").done) == (1, 1)


def test_the_lease_follows_the_median_of_the_latest_times_of_its_kind(
    store: FeedbackStore, clock: Clock
) -> None:
    ranking = NewTask(kind="ranking", prompt="a cat", image_ids=("a", "b"), priority=-1)
    store.add_tasks([*binary_tasks(6), ranking])
    rater = store.add_rater("anna")
    for number, seconds in enumerate((100, 900, 200, 300)):
        given = submission(claimed(store, rater), rater, str(number))
        store.submit(given.model_copy(update={"time_on_task_ms": 1000 * seconds}))
    lengths: dict[TaskKind, float] = {"binary": 12 * 250, "ranking": 300}
    for kind, held_s in lengths.items():
        claim = store.claim(rater, kind=kind)
        assert claim is not None
        assert claim.task.kind == kind
        assert (claim.lease_expires_at - clock.now).total_seconds() == held_s
