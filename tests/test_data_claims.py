"""Claims: places, holds and leases; threads at once; a process that is killed; any history."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from data.feedback import NewTask, NotFound
from data.store.feedback_store import FeedbackStore
from tests.support.claim_machine import Campaigning
from tests.support.data_campaign import (
    Clock,
    answer_at_once,
    binary_tasks,
    claimed,
    open_store,
    submission,
)

Campaigning.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestNoHistoryBreaksTheRulesOfClaims = Campaigning.TestCase


def test_threads_that_claim_at_once_never_exceed_the_overlap(store_url: str) -> None:
    with FeedbackStore.open(store_url, clock=Clock(), rng=random.Random(0)) as store:
        store.add_tasks(binary_tasks(12, overlap=2))
        per_task = answer_at_once(store, 6)
    assert (len(per_task), set(per_task.values())) == (12, {2})


def test_threads_that_send_one_submission_make_one_label(store_url: str) -> None:
    with FeedbackStore.open(store_url) as store:
        store.add_tasks(binary_tasks(1))
        rater = store.add_rater("anna")
        sent = submission(claimed(store, rater), rater, "same")
        with ThreadPoolExecutor(8) as pool:
            receipts = list(pool.map(store.submit, [sent] * 8))
    assert sum(receipt.created for receipt in receipts) == 1
    assert len({receipt.label_id for receipt in receipts}) == 1


def test_raters_hold_fewer_tasks_when_few_are_left(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(60))
    raters = [store.add_rater(name) for name in ("anna", "ben", "cleo")]
    held = []
    for number in range(60):
        rater = raters[number % 3]
        held.append(store.progress(rater).hold)
        store.submit(submission(claimed(store, rater), rater, str(number)))
    assert held[:3] == [10, 10, 10]
    assert (held[30], held[42], held[-1]) == (5, 3, 2)
    assert all(3 * one <= max((60 - done) / 2, 6) for done, one in enumerate(held[3:], 3))


def test_a_released_task_is_for_others_and_a_late_answer_to_it_is_kept(
    store: FeedbackStore,
) -> None:
    store.add_tasks(binary_tasks(1))
    anna, ben = (store.add_rater(name) for name in ("anna", "ben"))
    held = claimed(store, anna)
    store.release(ben, held.task.task_id)  # is not his
    assert store.claim(ben) is None
    store.release(anna, held.task.task_id)
    store.submit(submission(claimed(store, ben), ben, "in time"))
    store.submit(submission(held, anna, "late"))
    assert store.progress(anna).mine == store.progress(ben).mine == 1
    store.release(ben, held.task.task_id)  # an answer stays one
    with pytest.raises(NotFound, match="not held"):
        store.renew(ben, held.task.task_id)


def test_of_the_tasks_held_the_wanted_one_is_given_first(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(3))
    anna = store.add_rater("anna")
    held: list[str] = []
    while (claim := store.claim(anna, excluding=held)) is not None:
        held.append(claim.task.task_id)
    assert len(held) == 3
    for wanted in held:
        first = store.claim(anna, wanted=wanted)
        other = store.claim(anna, wanted=wanted, excluding=[wanted])
        assert first is not None
        assert other is not None
        assert first.task.task_id == wanted != other.task.task_id


def test_a_task_that_was_put_aside_and_answered_is_aside_no_more(store: FeedbackStore) -> None:
    store.add_tasks(binary_tasks(1))
    anna = store.add_rater("anna")
    held = claimed(store, anna)
    store.own_work.put_aside(anna, held.task.task_id)
    assert [one.task for one in store.own_work.aside(anna)] == [held.task]
    store.submit(submission(held, anna, "answer"))
    assert store.own_work.aside(anna) == []
    assert store.claim(anna) is None


def test_stores_of_one_seed_show_the_same_tasks_in_the_same_order(tmp_path: Path) -> None:
    def history(folder: Path) -> list[tuple[str, tuple[int, ...]]]:
        with open_store(folder) as store:
            triples = [(str(number), "a", "b") for number in range(8)]
            store.add_tasks(
                NewTask(kind="ranking", prompt="a cat", image_ids=ids) for ids in triples
            )
            rater = store.add_rater("anna")
            seen: list[tuple[str, tuple[int, ...]]] = []
            while (claim := store.claim(rater)) is not None:
                receipt = store.submit(submission(claim, rater, str(len(seen))))
                seen.append((receipt.label_id, claim.shown_order))
        return seen

    assert history(tmp_path / "one") == history(tmp_path / "two")
