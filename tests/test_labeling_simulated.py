import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data.kinds.comparison import ComparisonAnswer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels, raters
from data.store.views.overview import latest_labels
from labeling_app.campaign.simulated import (
    SimulatedRater,
    SimulatedRaterConfig,
    simulate,
    tied_ranks,
)
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks

IMAGES = 40
PERFECT = SimulatedRaterConfig(raters=1, noise=0, skip_rate=0, just_noticeable_difference=0)


def judge(image_id: str, _prompt: str) -> float:
    return int(image_id) / (IMAGES - 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore.open(
        f"sqlite:///{tmp_path / 'feedback.db'}", rng=random.Random(1)
    ) as opened:
        rows = [ImageRow(str(number), "a dog") for number in range(IMAGES)]
        opened.add_tasks(
            plan_tasks(
                rows, TasksConfig(binary_overlap=2, rankings_per_prompt=20, ranking_overlap=2)
            )
        )
        yield opened


def answers(store: FeedbackStore, kind: str) -> list[tuple[sa.Row[Any], dict[str, Any]]]:
    query = (
        sa.select(labels, raters.c.source)
        .join(raters, raters.c.rater_id == labels.c.rater_id)
        .where(labels.c.kind == kind)
    )
    with store.database.read() as connection:
        return [(row, json.loads(row.answer_json)) for row in connection.execute(query)]


def run(store: FeedbackStore, config: SimulatedRaterConfig, seed: int = 0) -> int:
    return len(list(simulate(store, judge, config, rng=random.Random(seed))))


def _rater(**state: float) -> SimulatedRater:
    return SimulatedRater.model_validate(PERFECT.model_dump() | {"rater_id": "r"} | state)


def test_raters_without_noise_or_bias_say_what_the_judge_says(store: FeedbackStore) -> None:
    run(store, PERFECT)
    given = latest_labels(store, limit=999)
    assert {one.task.kind for one in given} == {"binary", "ranking"}
    for one in given:
        if isinstance(one.answer, BinaryAnswer):
            good = judge(one.task.image_ids[0], "") >= 0.5
            assert one.answer.verdict == ("good" if good else "bad")
        if isinstance(one.answer, RankingAnswer):
            ranks = one.answer.ranks
            best_first = sorted(ranks, key=lambda image_id: ranks[image_id] or 0)
            assert best_first == sorted(best_first, key=int, reverse=True)


def test_every_task_gets_its_overlap_and_no_more(store: FeedbackStore) -> None:
    count = run(store, SimulatedRaterConfig(raters=3))
    progress = store.progress(source="simulated")
    assert count == progress.done == progress.total == 2 * (IMAGES + 20)


def test_labels_are_marked_as_simulated_and_timed_at_the_raters_pace(store: FeedbackStore) -> None:
    run(store, PERFECT)
    rows = [row for row, _answer in answers(store, "binary") + answers(store, "ranking")]
    assert {row.source for row in rows} == {"simulated"}
    binary = [row.time_on_task_ms for row in rows if row.kind == "binary"]
    ranking = [row.time_on_task_ms for row in rows if row.kind == "ranking"]
    assert 1000 < sorted(binary)[len(binary) // 2] < 4000
    assert sorted(ranking)[len(ranking) // 2] > 2 * sorted(binary)[len(binary) // 2]


@pytest.mark.parametrize(
    ("state", "verdict", "rate"), [("noise", "bad", 0.2), ("skip_rate", "skip", 0.3)]
)
def test_slips_and_skips_come_at_their_rates(state: str, verdict: str, rate: float) -> None:
    rater, rng = _rater(**{state: rate}), random.Random(3)
    count = sum(rater.verdict(0.9, rng=rng).verdict == verdict for _ in range(4000))
    assert count / 4000 == pytest.approx(rate, abs=0.03)


def test_position_bias_favors_the_first_place() -> None:
    rater = _rater(position_bias=0.2)
    for places, first in (([0, 1], "a"), ([1, 0], "b")):
        assert rater.ranking({"a": 0.5, "b": 0.5}, places, rng=random.Random(0)).ranks[first] == 1


def test_qualities_within_the_just_noticeable_difference_are_tied() -> None:
    close = tied_ranks({"a": 0.90, "b": 0.86, "c": 0.82, "d": 0.2}, 0.05)
    assert close == {"a": 1, "b": 1, "c": 2, "d": 3}
    assert tied_ranks({"a": 0.5, "b": 0.5}, 0) == {"a": 1, "b": 1}


def test_the_same_seeds_give_the_same_answers(tmp_path: Path) -> None:
    outcomes = []
    for name in ("one", "two"):
        with FeedbackStore.open(f"sqlite:///{tmp_path / name}.db", rng=random.Random(1)) as store:
            store.add_tasks(
                plan_tasks([ImageRow(str(number), "a dog") for number in range(8)], TasksConfig())
            )
            run(store, SimulatedRaterConfig(raters=2), seed=5)
            outcomes.append(
                [
                    (row.task_id, row.time_on_task_ms, answer)
                    for row, answer in answers(store, "binary")
                ]
            )
    assert outcomes[0] == outcomes[1]


def test_a_second_run_with_the_same_seed_answers_what_was_added_since(store: FeedbackStore) -> None:
    run(store, PERFECT)
    store.add_tasks(
        plan_tasks(
            [ImageRow(str(IMAGES - 1 - number), "a fox") for number in range(6)],
            TasksConfig(binary_overlap=0),
        )
    )
    assert run(store, PERFECT) == store.progress(source="simulated").total - 2 * (IMAGES + 20)


def compared(*, right: float = 1.0, **state: float) -> ComparisonAnswer:
    """The answer about an image of quality 0.4 on the left and another one on the right."""
    rng = random.Random(2)
    return _rater(**state).comparison({"a": 0.4, "b": right}, (0, 1), rng=rng)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (compared(), {"preferred": "b"}),
        (compared(position_bias=0.58, just_noticeable_difference=0.05), {"outcome": "tie"}),
        (compared(position_bias=2.0), {"preferred": "a"}),
        (compared(right=0.9, just_noticeable_difference=0.7, threshold=1), {"outcome": "both_bad"}),
        (compared(skip_rate=1.0), {"outcome": "skip"}),
    ],
)
def test_simulated_raters_compare_as_their_state_says(
    given: ComparisonAnswer, answer: dict[str, str]
) -> None:
    said = given.model_dump(include={"outcome", "preferred"}, exclude_none=True)
    assert said == {"outcome": "preferred"} | answer


def test_noise_costs_agreement_with_the_judge() -> None:
    rater, rng = _rater(noise=0.5), random.Random(5)
    pairs = [rater.comparison({"a": 0.4, "b": 1.0}, (0, 1), rng=rng) for _ in range(300)]
    assert 0.5 < sum(answer.preferred == "b" for answer in pairs) / 300 < 0.95
