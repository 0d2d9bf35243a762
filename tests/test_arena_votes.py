"""Votes from the side of a model, and the agreement of automatic figures with them."""

import numpy as np
import pytest

from benchmarks.compare import Crowd
from pipelines.compare.arena.analysis import automatic_agreement
from pipelines.compare.arena.votes import Votes


def campaign() -> Votes:
    """Votes on prompts of much luck, on which raters agree."""
    crowd = Crowd(raters=8, prompts=60, images=2, overlap=4, luck=4.0)
    return crowd.campaign(np.random.default_rng(0))


def test_an_automatic_figure_that_knows_the_luck_agrees_and_a_constant_is_chance() -> None:
    votes = campaign()
    lean = np.bincount(votes.pair, votes.outcome - 0.5, len(votes.images))
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
    assert votes.met == [(0, 1), (0, 2), (1, 2)]
    assert there.with_models_there().models == ("model 0", "model 2")
