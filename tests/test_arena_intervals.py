"""Intervals over raters and prompts: their coverage, and cases that can be computed by hand."""

import numpy as np
import pytest

from benchmarks.compare import CASES, LOOKED_AT, coverage, looked_at
from pipelines.arena.intervals import clustered, share_of
from pipelines.arena.sequential import always_valid
from pipelines.arena.votes import Indices, Values


def mean(sums: Values) -> Values:
    """Mean of values whose sums stand beside their numbers."""
    return sums[:, :1] / sums[:, 1:]


def of_values(values: Values) -> Values:
    return np.stack([values, np.ones_like(values)], axis=1)


def width_of(won: Values, rater: Indices, prompt: Indices) -> float:
    found = share_of(won, rater, prompt)
    assert found is not None
    assert found.interval is not None
    return found.interval[1] - found.interval[0]


@pytest.mark.parametrize(
    "case", ["independent votes", "taste and luck", "taste, luck, bias of position, ties"]
)
def test_intervals_of_a_model_against_itself_hold_0_as_often_as_they_say(case: str) -> None:
    found = coverage(CASES[case], 1000, np.random.default_rng(1))
    assert 0.93 <= found["95"] <= 0.97
    assert 0.98 <= found["99"] <= 1
    if case != "independent votes":
        assert found["independent_95"] < 0.9  # what votes as such would promise


def test_over_raters_alone_the_variance_is_that_of_their_means() -> None:
    rng = np.random.default_rng(0)
    values, rater = rng.normal(size=60), np.repeat(np.arange(12), 5)
    found = clustered(of_values(values), rater, np.zeros(60, np.int64), mean, np.zeros(1))
    of_raters = values.reshape(12, 5).mean(1)
    assert found.value == pytest.approx([values.mean()])
    assert found.variance == pytest.approx([of_raters.var(ddof=1) / 12])
    assert found.df == pytest.approx([11])


def test_asking_the_same_rater_the_same_again_tells_nothing_new() -> None:
    rng = np.random.default_rng(0)
    won, rater, prompt = (rng.integers(k, size=120) for k in (2, 10, 30))
    nine = np.repeat(np.arange(120), 9)
    once = width_of(won.astype(np.float64), rater, prompt)
    often = width_of(won[nine].astype(np.float64), rater[nine], prompt[nine])
    assert often == pytest.approx(once, rel=0.05)


def test_one_rater_has_an_interval_over_prompts_and_one_answer_none() -> None:
    won, one = np.array([1.0, 0.0, 1.0, 1.0, 0.5, 1.0]), np.zeros(6, np.int64)
    found = share_of(won, one, np.arange(6))
    assert found is not None
    assert found.interval is not None
    assert found.interval[0] < 0.75 < found.interval[1]
    alone = share_of(won, one, one)
    assert alone is not None
    assert alone.interval is None
    assert share_of(won[:0], one[:0], one[:0]) is None


def test_a_share_of_all_votes_has_an_interval_below_1() -> None:
    found = share_of(np.ones(20), np.arange(20) % 5, np.arange(20) % 10)
    assert found is not None
    assert found.value == 1
    assert found.interval is not None
    low, high = found.interval
    assert 0.6 < low < 0.95
    assert high < 1


def test_looking_after_every_vote_keeps_the_level() -> None:
    found = looked_at(LOOKED_AT["taste and luck"], 25, np.random.default_rng(0))
    assert found["stopped"] <= 0.08
    assert found["stopped_by_the_plain_interval"] > 0.1  # what looking costs without it


def test_the_interval_for_any_look_is_wider_than_that_for_one() -> None:
    rng = np.random.default_rng(0)
    values, rater, prompt = rng.normal(size=200), rng.integers(10, size=200), np.arange(200) % 40
    found = clustered(of_values(values), rater, prompt, mean, np.zeros(1))
    (low, high), (lowest, highest) = found.intervals()[0], always_valid(found, 0.2)[0]
    assert lowest < low < high < highest
    assert highest - lowest < 3 * (high - low)
