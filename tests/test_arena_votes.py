"""Votes from the side of a model."""

import numpy as np
import pytest

from benchmarks.compare import Crowd


def test_votes_between_two_models_are_turned_to_the_side_of_the_first() -> None:
    votes = Crowd(strengths=(0.0, 0.0, 0.0)).campaign(np.random.default_rng(0))
    there, back = votes.between(0, 2), votes.between(2, 0)
    assert len(there) == len(back) == len(votes) / 3
    assert there.outcome == pytest.approx(1 - back.outcome)
    assert votes.met == [(0, 1), (0, 2), (1, 2)]
    assert there.with_models_there().models == ("model 0", "model 2")
