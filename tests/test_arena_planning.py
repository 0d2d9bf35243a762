"""Power of the intervals, and the forecast of the votes that decide a pair."""

import numpy as np

from benchmarks.compare import Crowd, found_share
from pipelines.compare.arena.analysis import votes_to_decide


def test_a_true_60_to_40_is_found_at_200_votes_with_power_80() -> None:
    """100 raters with two votes each, a prompt for each vote; an exact binomial test has 0.787."""
    crowd = Crowd(100, 200, images=1, overlap=1, strengths=(np.log(1.5), 0.0))
    assert found_share(crowd, 2000, np.random.default_rng(0)) >= 0.8


def test_a_forecast_grows_with_the_square_of_what_is_missing() -> None:
    assert votes_to_decide(40.0, (-40.0, 120.0), 100) == 400
    assert votes_to_decide(40.0, (10.0, 70.0), 100) == 100
    assert votes_to_decide(1.0, (-79.0, 81.0), 100) is None
    assert votes_to_decide(0.0, (-80.0, 80.0), 100) is None
