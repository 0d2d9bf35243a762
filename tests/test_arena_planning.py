"""Plans of votes: what they promise is what simulated campaigns find."""

from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binom

from benchmarks.compare import Crowd, found_share, planned_votes, says
from pipelines.compare.arena.planning import Design, power, votes_needed, votes_to_decide
from pipelines.compare.arena.settings import ArenaConfig
from pipelines.compare.arena.standing import plans


def test_a_true_60_to_40_is_found_at_200_votes_with_power_80() -> None:
    """100 raters with two votes each, a prompt for each vote; an exact binomial test has 0.787."""
    crowd = Crowd(100, 200, images=1, overlap=1, strengths=(np.log(1.5), 0.0))
    assert found_share(crowd, 2000, np.random.default_rng(0)) >= 0.8
    assert power(0.6, 200, Design(100, 200, 0.0, 0.0)) == pytest.approx(0.81, abs=0.01)


@pytest.mark.parametrize("design", [Design(5, 25, 0.05, 0.15, 0.1), Design(20, 100, 0.0, 0.0, 0.0)])
@pytest.mark.parametrize(
    ("share", "votes"), [(0.8, 12), (0.8, 25), (0.7, 49), (0.7, 50), (0.7, 100), (0.6, 400)]
)
def test_what_is_planned_is_what_the_interval_finds(
    share: float, votes: int, design: Design
) -> None:
    """Of 1,000 campaigns the standard error is 0.016 at most."""
    rng = np.random.default_rng(votes)
    found = [says(*planned_votes(share, votes, design, rng)) for _ in range(1000)]
    assert power(share, votes, design) == pytest.approx(np.mean(np.abs(found)), abs=0.06)


def test_a_plan_for_few_votes_is_that_of_the_exact_test() -> None:
    """Of 17 votes by as many raters 13 must be won, which a true share of 0.8 does in 0.758."""
    alone = Design(100, 200, 0.0, 0.0)
    assert power(0.8, 17, alone) == pytest.approx(binom.sf(12, 17, 0.8), abs=0.03)
    many = Design(20, 100, 0.05, 0.15, 0.1)
    powers = [power(0.7, votes, many) for votes in range(46, 64)]
    assert np.abs(np.diff(powers)).max() < 0.03  # at 50 votes, and where the forecast changes


def test_the_power_of_fewer_raters_is_less() -> None:
    powers = [power(0.6, 200, Design(n, 200, 0.0, 0.0)) for n in (10, 20, 50, 100, 200)]
    assert powers == sorted(powers)
    assert powers[0] < 0.76


def test_without_a_difference_the_power_is_the_level() -> None:
    assert power(0.5, 300, Design(12, 40, 0.1, 0.2, 0.1)) == pytest.approx(0.05, abs=0.01)


def test_the_votes_needed_are_the_fewest() -> None:
    design = Design(20, 100, 0.05, 0.15, 0.1)
    votes = votes_needed(0.6, design, 0.8)
    assert votes is not None
    assert power(0.6, votes, design) >= 0.8 > power(0.6, votes - 1, design)


def test_more_raters_prompts_and_difference_need_fewer_votes() -> None:
    found = plans(ArenaConfig())
    for plan in found:
        for row in plan.rows:
            known = [n for n in row.votes if n is not None]
            assert known == sorted(known, reverse=True)
            assert row.votes[len(row.votes) - len(known) :] == known  # "never" stands first
    for few, many in pairwise(found):
        for row, other in zip(few.rows, many.rows, strict=True):
            pairs = zip(row.votes, other.votes, strict=True)
            assert all(a is None or (b is not None and b <= a) for a, b in pairs)


def test_no_number_of_votes_makes_up_for_few_raters_of_strong_taste() -> None:
    assert votes_needed(0.55, Design(5, 100, 0.1, 0.0), 0.8) is None
    assert votes_needed(0.55, Design(5, 100, 0.0, 0.0), 0.8) is not None


def test_a_forecast_grows_with_the_square_of_what_is_missing() -> None:
    assert votes_to_decide(40.0, (-40.0, 120.0), 100) == 400
    assert votes_to_decide(40.0, (10.0, 70.0), 100) == 100
    assert votes_to_decide(1.0, (-79.0, 81.0), 100) is None
    assert votes_to_decide(0.0, (-80.0, 80.0), 100) is None


@pytest.mark.parametrize("wrong", [{"raters": (1,)}, {"prompts": ()}, {"power": 1.0}])
def test_settings_that_plan_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ArenaConfig.model_validate(wrong)
