"""Raters beside each other: chance, position, agreement and disputes; automatic figures."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.compare import Crowd
from pipelines.compare.arena.analysis import automatic_agreement
from pipelines.compare.arena.raters import agreement, disputes, left_wins, rater_figures
from pipelines.compare.arena.votes import Votes


def campaign(*, by_chance: int = 0) -> Votes:
    """Votes on prompts of much luck, on which raters agree; the first ones answer at random."""
    rng = np.random.default_rng(0)
    votes = Crowd(raters=8, prompts=60, images=2, overlap=4, luck=4.0).campaign(rng)
    random = votes.rater < by_chance
    drawn = rng.integers(2, size=len(votes)).astype(np.float64)
    return replace(votes, outcome=np.where(random, drawn, votes.outcome))


def test_raters_who_answer_by_chance_are_named_and_no_others() -> None:
    found = rater_figures(campaign(by_chance=2))
    assert {one.rater_id for one in found if one.by_chance} == {"0", "1"}
    assert sum(one.n for one in found) == 480
    assert [one.n for one in found] == sorted((one.n for one in found), reverse=True)
    assert not any(one.by_chance for one in rater_figures(campaign()))


def test_nobody_answers_by_chance_whom_few_can_check() -> None:
    votes = campaign(by_chance=2)
    few = votes.where(np.arange(len(votes)) < 100)
    assert all(one.compared < 20 for one in rater_figures(few))
    assert not any(one.by_chance for one in rater_figures(few))


def test_a_rater_who_always_says_left_is_seen() -> None:
    votes = campaign()
    always = replace(
        votes, outcome=np.where(votes.rater == 3, votes.a_is_left, votes.outcome).astype(float)
    )
    (found,) = (one for one in rater_figures(always) if one.rater_id == "3")
    assert found.left == 1
    assert found.by_chance
    assert left_wins(always)[always.rater == 3].mean() == 1


def test_agreement_is_near_0_by_chance_and_high_where_raters_see_alike() -> None:
    rng = np.random.default_rng(0)
    seen_alike, chance = agreement(campaign(), rng), agreement(campaign(by_chance=8), rng)
    assert seen_alike["alpha"] > 0.4
    assert chance["alpha_ci_low"] < 0 < chance["alpha_ci_high"]
    assert seen_alike["n_tasks"] == 120
    alone = campaign().where(campaign().rater == 0)
    assert agreement(alone, rng)["alpha"] is None


def test_the_most_even_disputes_come_first() -> None:
    found = disputes(campaign())
    evenness = (found["first"] - found["second"]).abs() / (found["first"] + found["second"])
    assert evenness.is_monotonic_increasing
    assert (found[["first", "second"]] > 0).all(axis=None)
    assert found.iloc[0]["first"] == found.iloc[0]["second"]
    assert (found.sum(axis=1) == 4).all()


def test_an_automatic_figure_that_knows_the_luck_agrees_and_a_constant_is_chance() -> None:
    votes = campaign()
    lean = np.bincount(votes.pair, votes.outcome - 0.5, len(votes.pairs))
    knowing = {
        image: sign * value
        for images, value in zip(votes.images, lean, strict=True)
        for image, sign in zip(images, (1.0, -1.0), strict=True)
    }
    found = automatic_agreement(votes, knowing)
    constant = automatic_agreement(votes, dict.fromkeys(knowing, 1.0))
    assert found is not None
    assert found.interval is not None
    assert found.share > 0.8
    assert found.interval[0] > 0.7
    assert constant is not None
    assert constant.share == 0.5
    assert automatic_agreement(votes, {}) is None
    some = {image: value for image, value in knowing.items() if int(image[:-1]) < 10}
    part = automatic_agreement(votes, some)
    assert part is not None
    assert 0 < part.n <= 40


def test_votes_between_two_models_are_turned_to_the_side_of_the_first() -> None:
    votes = Crowd(strengths=(0.0, 0.0, 0.0)).campaign(np.random.default_rng(0))
    there, back = votes.between(0, 2), votes.between(2, 0)
    assert len(there) == len(back) == len(votes) / 3
    assert there.outcome == pytest.approx(1 - back.outcome)
    assert (left_wins(there) == left_wins(back)).all()
    assert votes.met == [(0, 1), (0, 2), (1, 2)]
    assert there.with_models_there().models == ("model 0", "model 2")
