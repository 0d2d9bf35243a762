"""Reported images: out of circulation until the report is withdrawn or an admin decides."""

import random
from pathlib import Path
from typing import Literal

import pytest

from data.feedback import ChecksConfig, Claim, NewTask, NotFound
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.plan.planning import task_id_of
from data.store.views.overview import counts_by_category
from tests.support.data_campaign import (
    Clock,
    answer_all,
    binary_tasks,
    claimed,
    count_reported,
    given_elsewhere,
    submission,
)

UNSAFE = BinaryAnswer(verdict="unsafe", reason="Violent or cruel", comment="blood")
ALONE = NewTask(kind="binary", prompt="a cat", image_ids=("x",), overlap=3)
TOGETHER = NewTask(kind="ranking", prompt="a cat", image_ids=("x", "y", "z"), overlap=3)
OTHER = NewTask(kind="binary", prompt="a cat", image_ids=("y",), overlap=3)


@pytest.fixture
def store(store: FeedbackStore) -> FeedbackStore:
    store.add_tasks([ALONE, TOGETHER, OTHER])
    return store


def claim_of(store: FeedbackStore, rater: str, task: NewTask) -> Claim:
    """The rater's claim of this task, with those before it held as well."""
    held: list[str] = []
    while (claim := store.claim(rater, excluding=held)) is not None:
        if claim.task.task_id == task_id_of(task):
            return claim
        held.append(claim.task.task_id)
    raise AssertionError(task)


def given_out(store: FeedbackStore, rater: str) -> list[str]:
    """Return the tasks that one claim after the other hands out."""
    held: list[str] = []
    while (claim := store.claim(rater, excluding=held)) is not None:
        held.append(claim.task.task_id)
    return sorted(held)


def ids(*tasks: NewTask) -> list[str]:
    return sorted(task_id_of(task) for task in tasks)


def report(store: FeedbackStore, name: str, submission_id: str = "report") -> str:
    rater = store.add_rater(name)
    store.submit(submission(claim_of(store, rater, ALONE), rater, submission_id, UNSAFE))
    return rater


def test_a_reported_image_is_handed_out_no_more_alone_or_in_a_ranking(store: FeedbackStore) -> None:
    ben = store.add_rater("ben")
    assert given_out(store, ben) == ids(ALONE, TOGETHER, OTHER)
    report(store, "anna")
    # what ben holds is not given again
    assert given_out(store, ben) == given_out(store, store.add_rater("cleo")) == ids(OTHER)
    assert sorted(store.reports.withheld_tasks(ids(ALONE, TOGETHER, OTHER))) == ids(ALONE, TOGETHER)
    assert store.reports.withheld_images(["x", "y"]) == {"x"}
    store.add_tasks([NewTask(kind="ranking", prompt="a cat", image_ids=("x", "z"), overlap=3)])
    assert given_out(store, ben) == ids(OTHER)


def test_a_hold_on_a_reported_image_is_lost_but_an_answer_is_taken(store: FeedbackStore) -> None:
    ben = store.add_rater("ben")
    held = claim_of(store, ben, TOGETHER)
    report(store, "anna")
    with pytest.raises(
        NotFound,
        match="an image of it was reported; claim another task, an answer is still accepted",
    ):
        store.renew(ben, held.task.task_id)
    assert store.submit(submission(held, ben, "late")).created


@pytest.mark.parametrize("verdict", [None, "good", "skip"])
def test_an_image_is_back_once_its_only_report_is_taken_back(
    store: FeedbackStore, clock: Clock, verdict: Literal["good", "skip"] | None
) -> None:
    anna, ben = store.add_rater("anna"), store.add_rater("ben")
    held = claim_of(store, anna, ALONE)
    store.submit(submission(held, anna, "report", UNSAFE))
    clock.pass_seconds(1)
    if verdict is None:
        assert store.undo(anna) == claimed(store, anna).task == held.task
    else:
        store.submit(submission(held, anna, "edit", BinaryAnswer(verdict=verdict)))
    assert given_out(store, ben) == ids(ALONE, TOGETHER, OTHER)
    assert store.reports.images() == []


def test_one_of_two_reports_keeps_the_image_out(store: FeedbackStore, clock: Clock) -> None:
    ben = store.add_rater("ben")
    held = claim_of(store, ben, ALONE)
    anna = report(store, "anna")
    store.submit(submission(held, ben, "second", UNSAFE))
    clock.pass_seconds(1)
    assert store.undo(anna) == held.task
    assert given_out(store, anna) == given_out(store, store.add_rater("cleo")) == ids(OTHER)
    (image,) = store.reports.images()
    said = [(one.rater, one.reason, one.comment) for one in image.reports]
    assert said == [("ben", "Violent or cruel", "blood")]
    assert (image.image_id, image.prompt, image.removed) == ("x", "a cat", False)
    store.undo(ben)
    assert given_out(store, store.add_rater("cleo")) == ids(ALONE, TOGETHER, OTHER)


def test_what_an_admin_puts_back_stays_until_it_is_reported_again(
    store: FeedbackStore, clock: Clock
) -> None:
    boss, ben, cleo = report(store, "anna"), store.add_rater("ben"), store.add_rater("cleo")
    store.reports.decide("x", "kept", boss)
    assert (store.reports.images(), count_reported(store)) == ([], (0, 0))
    held = claim_of(store, ben, ALONE)
    clock.pass_seconds(1)
    store.submit(submission(held, ben, "again", UNSAFE))
    assert count_reported(store) == (1, 0)
    assert given_out(store, cleo) == ids(OTHER)
    clock.pass_seconds(1)
    store.undo(ben)
    assert given_out(store, cleo) == ids(ALONE, TOGETHER, OTHER)


def test_what_an_admin_removes_stays_out_whatever_raters_do_until_it_is_put_back(
    store: FeedbackStore,
) -> None:
    ben = store.add_rater("ben")
    held = claim_of(store, ben, ALONE)
    anna = report(store, "anna")
    store.reports.decide("x", "removed", anna)
    with pytest.raises(NotFound, match="no report of it is open"):
        store.reports.decide("x", "removed", anna)
    store.submit(submission(held, ben, "late", UNSAFE))
    store.undo(anna)
    (image,) = store.reports.images()
    assert (image.removed, count_reported(store)) == (True, (0, 1))
    assert given_out(store, ben) == ids(OTHER)
    store.reports.decide("x", "kept", anna)
    assert given_out(store, store.add_rater("cleo")) == ids(ALONE, TOGETHER, OTHER)


def test_a_campaign_with_withheld_tasks_comes_to_its_end(store: FeedbackStore) -> None:
    assert store.progress().total == 9
    report(store, "anna")
    for name in ("anna", "ben", "cleo"):
        answer_all(store, store.add_rater(name))
    progress = store.progress()
    assert (progress.done, progress.total) == (4, 4)
    assert [(count.kind, count.done, count.total) for count in counts_by_category(store, {})] == [
        ("binary", 4, 4),
        ("ranking", 0, 0),
    ]


def hidden_gold(verdict: Literal["good", "unsafe"]) -> NewTask:
    changes = {"overlap": 9, "gold": BinaryAnswer(verdict=verdict), "gold_source": "us"}
    return ALONE.model_copy(update=changes)


def test_neither_gold_nor_repeats_ask_about_a_reported_image(tmp_path: Path) -> None:
    checks = ChecksConfig(gold_share=0.5, repeat_share=0.5)
    url = f"sqlite:///{tmp_path / 'f.db'}"
    with FeedbackStore.open(url, rng=random.Random(0), checks=checks) as store:
        store.add_tasks([*binary_tasks(50), hidden_gold("good")])
        anna, ben = store.add_rater("anna"), store.add_rater("ben")
        reported = {"x"}
        for number in range(12):
            earlier = claimed(store, anna)
            store.submit(submission(earlier, anna, str(number)))
            reported.add(earlier.task.image_ids[0])  # the first ones could come again by now
        report_all(store, ben, hold_all(store, ben, tuple(reported)))
        for rater in (anna, ben):
            for number in range(12):
                claim = claimed(store, rater)
                assert not reported & set(claim.task.image_ids)
                store.submit(submission(claim, rater, f"{rater}-{number}"))


def test_the_right_answer_to_hidden_gold_is_no_report(tmp_path: Path) -> None:
    checks = ChecksConfig(gold_share=1.0)
    with FeedbackStore.open(f"sqlite:///{tmp_path / 'f.db'}", checks=checks) as store:
        store.add_tasks([hidden_gold("unsafe"), *binary_tasks(5)])
        for name in ("anna", "ben"):
            rater = store.add_rater(name)
            claim = claimed(store, rater)
            assert claim.task.image_ids == ("x",)
            store.submit(submission(claim, rater, name, UNSAFE))
        assert store.reports.images() == []


def test_an_imported_label_reports_as_one_that_is_given_here(store: FeedbackStore) -> None:
    said = {"1": UNSAFE, "2": BinaryAnswer(verdict="good")}
    reported, edited = (given_elsewhere(key, ALONE, said[key], rater="dora") for key in said)
    store.import_labels([ALONE], [reported], finish=lambda: None)
    assert [one.rater for one in store.reports.images()[0].reports] == ["dora"]
    store.import_labels([ALONE], [edited], finish=lambda: None)
    assert store.reports.images() == []


def hold_all(store: FeedbackStore, rater: str, image_ids: tuple[str, ...]) -> Claim:
    """Add a ranking of these images, and let the rater claim it."""
    task = NewTask(kind="ranking", prompt="a cat", image_ids=image_ids, priority=9)
    store.add_tasks([task])
    return claim_of(store, rater, task)


def report_all(store: FeedbackStore, rater: str, held: Claim) -> None:
    """Let the rater report all images of what they hold."""
    image_ids = held.task.image_ids
    bad = RankingAnswer(ranks=dict.fromkeys(image_ids), unsafe=image_ids)
    store.submit(submission(held, rater, f"{rater} {image_ids[0]}", bad))


def test_the_reports_of_one_rater_keep_20_images_out_and_others_wait_for_an_admin(
    store: FeedbackStore, clock: Clock
) -> None:
    anna, ben = store.add_rater("anna"), store.add_rater("ben")
    images = tuple(f"i{number:02}" for number in range(30))
    report_all(store, anna, hold_all(store, anna, images[:15]))
    report_all(store, anna, hold_all(store, anna, images[15:]))
    assert store.reports.withheld_images(images) == set(images[:20])
    assert count_reported(store) == (30, 0)
    listed = {image.image_id: image.withheld for image in store.reports.images()}
    assert listed == {image_id: image_id in images[:20] for image_id in images}
    # another rater's report counts, and so does an admin's decision
    report_all(store, ben, hold_all(store, ben, (images[25], "x")))
    store.reports.decide(images[26], "removed", ben)
    assert store.reports.withheld_images(images) == {*images[:20], images[25], images[26]}
    clock.pass_seconds(1)
    store.undo(anna)
    assert store.reports.withheld_images(images) == {*images[:15], images[25], images[26]}
    assert count_reported(store) == (17, 1)
