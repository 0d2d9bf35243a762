"""Plans of votes: what they promise is what simulated campaigns find."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.compare import Crowd, found_share, planned_votes, says
from pipelines.compare.arena.planning import Design, power, votes_needed, votes_to_decide


def test_a_true_60_to_40_is_found_at_200_votes_with_power_80() -> None:
    """100 raters with two votes each, a prompt for each vote; an exact binomial test has 0.787."""
    crowd = Crowd(100, 200, images=1, overlap=1, strengths=(np.log(1.5), 0.0))
    assert found_share(crowd, 2000, np.random.default_rng(0)) >= 0.8
    assert power(0.6, 200, Design(100, 200, 0.0, 0.0, 0.0)) == pytest.approx(0.81, abs=0.01)


@pytest.mark.parametrize("design", [Design(5, 25), Design(20, 100, 0.0, 0.0, 0.0)])
@pytest.mark.parametrize(("share", "votes"), [(0.8, 25), (0.7, 49), (0.7, 100), (0.6, 400)])
def test_what_is_planned_is_what_the_interval_finds(
    share: float, votes: int, design: Design
) -> None:
    """Of 1,000 campaigns the standard error is 0.016 at most."""
    rng = np.random.default_rng(votes)
    found = [says(*planned_votes(share, votes, design, rng)) for _ in range(1000)]
    assert power(share, votes, design) == pytest.approx(np.mean(np.abs(found)), abs=0.09)


def test_without_a_difference_the_power_is_the_level() -> None:
    assert power(0.5, 300, Design(12, 40, 0.1, 0.2, 0.1)) == pytest.approx(0.05, abs=0.01)


def test_the_votes_needed_are_the_fewest() -> None:
    design = Design(20, 100)
    votes = votes_needed(0.6, design)
    assert votes is not None
    assert power(0.6, votes, design) >= 0.8 > power(0.6, votes - 1, design)


@pytest.mark.parametrize("share", [0.55, 0.6, 0.8, 0.97])
def test_more_raters_and_prompts_need_no_more_votes(share: float) -> None:
    """None, that no number is enough, stands first."""
    sizes = (5, 10, 20, 40, 200)
    rows = [[votes_needed(share, Design(n, m)) or np.inf for n in sizes] for m in sizes]
    for row in [*rows, *zip(*rows, strict=True)]:
        assert all(few >= many for few, many in pairwise(row))


def test_no_number_of_votes_makes_up_for_few_raters_of_strong_taste() -> None:
    assert votes_needed(0.55, Design(5, 100, 0.1, 0.0)) is None
    assert votes_needed(0.55, Design(5, 100, 0.0, 0.0)) is not None


def test_a_forecast_grows_with_the_square_of_what_is_missing() -> None:
    assert votes_to_decide(40.0, (-40.0, 120.0), 100) == 400
    assert votes_to_decide(40.0, (10.0, 70.0), 100) == 100
    assert votes_to_decide(1.0, (-79.0, 81.0), 100) is None
    assert votes_to_decide(0.0, (-80.0, 80.0), 100) is None
