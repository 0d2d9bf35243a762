"""Intervals over raters and prompts: their coverage, and cases that can be computed by hand."""

import numpy as np
import pytest

from benchmarks.compare import CASES, LOOKED_AT, Design, coverage, looked_at, planned_votes, says
from data.intervals import wilson_interval
from pipelines.compare.arena.intervals import (
    Estimates,
    always_valid,
    clustered,
    log_odds,
    share_of,
)
from pipelines.compare.arena.votes import Indices, Values


def of_votes(won: Values, rater: Indices, prompt: Indices) -> Estimates:
    return clustered(np.stack([won, 1 - won], axis=1), rater, prompt, log_odds, np.zeros(1))


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
    """12 raters whose votes are alike give 11 degrees of freedom."""
    rng = np.random.default_rng(0)
    rater = np.repeat(np.arange(12), 50)
    won = (rng.random(600) < np.repeat(rng.uniform(0.2, 0.9, 12), 50)).astype(np.float64)
    found = of_votes(won, rater, np.zeros(600, np.int64))
    of_raters = won.reshape(12, 50).mean(1)
    assert found.share == pytest.approx([won.mean()], abs=1e-3)
    assert found.share_variance == pytest.approx([of_raters.var(ddof=1) / 12], rel=1e-2)
    assert found.df == pytest.approx([11], rel=0.05)


@pytest.mark.parametrize(("wins", "votes"), [(13, 17), (20, 25), (30, 49), (32, 50)])
def test_where_each_vote_is_a_rater_and_a_prompt_the_interval_is_wilsons(
    wins: int, votes: int
) -> None:
    each = np.arange(votes)
    found = share_of((each < wins).astype(np.float64), each, each)
    assert found is not None
    assert found.interval == pytest.approx(wilson_interval(wins, votes), abs=0.015)


@pytest.mark.parametrize("votes", [12, 25, 50, 100])
@pytest.mark.parametrize("raters", [5, 20])
def test_few_votes_of_a_model_against_itself_are_called_a_difference_one_time_in_twenty(
    votes: int, raters: int
) -> None:
    rng = np.random.default_rng(votes)
    design = Design(raters, 100, 0.05, 0.15, 0.1)
    found = [says(*planned_votes(0.5, votes, design, rng)) for _ in range(1000)]
    assert 0.02 <= np.mean(np.abs(found)) <= 0.08


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


def test_a_share_of_all_votes_or_of_none_is_within_its_interval() -> None:
    found = share_of(np.ones(20), np.arange(20) % 5, np.arange(20) % 10)
    assert found is not None
    assert found.share == 1
    assert found.interval is not None
    low, high = found.interval
    assert 0.6 < low < 0.95
    assert high == 1
    none = share_of(np.zeros(2), np.arange(2), np.arange(2))
    assert none is not None
    assert none.interval is not None
    assert none.interval[0] == 0
    assert 0.5 < none.interval[1] < 1


def test_looking_after_every_vote_keeps_the_level() -> None:
    found = looked_at(LOOKED_AT["taste and luck"], 25, np.random.default_rng(0))
    assert found["stopped"] <= 0.08
    assert found["stopped_by_the_plain_interval"] > 0.1  # what looking costs without it


def test_the_interval_for_any_look_is_wider_than_that_for_one() -> None:
    rng = np.random.default_rng(0)
    won, rater, prompt = rng.integers(2, size=200), rng.integers(10, size=200), np.arange(200) % 40
    found = of_votes(won.astype(np.float64), rater, prompt)
    (low, high), (lowest, highest) = found.intervals()[0], always_valid(found, 0.2)[0]
    assert lowest < low < high < highest
    assert highest - lowest < 3 * (high - low)
