"""Strengths on the Elo scale, against published tables and hand-computable cases."""

import numpy as np
import pytest
from evalica import Winner, bradley_terry

from benchmarks.compare import IMAGEN_ELO, IMAGEN_TABLES, Crowd, imagen_wins
from pipelines.compare.arena.ratings import (
    ELO,
    bradley_terry_strengths,
    is_connected,
    rate,
    win_probability,
)
from pipelines.compare.arena.votes import Votes


@pytest.mark.parametrize("table", IMAGEN_TABLES)
def test_the_published_tables_give_the_order_of_the_paper_within_25_elo(table: str) -> None:
    found, paper = bradley_terry_strengths(imagen_wins(table)[None])[0], np.array(IMAGEN_ELO[table])
    assert (np.argsort(-found) == np.argsort(-paper)).all()
    assert np.abs(found - paper).max() < 25


def test_the_published_table_of_overall_preference_gives_these_strengths() -> None:
    found = bradley_terry_strengths(imagen_wins("overall")[None])[0]
    assert np.abs(found - [1091, 1042, 1023, 1021, 944, 880]).max() < 1
    assert found.mean() == pytest.approx(1000)


def test_two_models_have_the_strengths_that_evalica_finds() -> None:
    wins = np.array([[0, 60.5], [39.5, 0]])
    fitted = bradley_terry([0, 1], [1, 0], [Winner.X] * 2, weights=[60.5, 39.5], tolerance=1e-12)
    logs = ELO * np.log(fitted.scores.sort_index().to_numpy())
    found = bradley_terry_strengths(wins[None])[0]
    assert found[0] - found[1] == pytest.approx(logs[0] - logs[1], abs=1e-6)
    assert found[0] - found[1] == pytest.approx(as_elo(0.605))


def test_strengths_are_at_the_maximum_of_the_likelihood() -> None:
    """At the maximum each model wins as often as its strength lets expect."""
    wins = imagen_wins("overall") + 0.5 * (1 - np.eye(6))
    found = bradley_terry_strengths(wins[None])[0]
    expected = (wins + wins.T) * win_probability(found[:, None] - found[None, :])
    np.fill_diagonal(expected, 0)
    assert expected.sum(1) == pytest.approx(wins.sum(1), rel=1e-6)


def as_elo(share: float) -> float:
    """Elo points ahead at which a model wins this share of the votes."""
    return float(ELO * np.log(share / (1 - share)))


def test_400_elo_ahead_win_10_of_11() -> None:
    assert win_probability(400) == pytest.approx(10 / 11)
    assert win_probability(as_elo(0.73)) == pytest.approx(0.73)


def votes(outcome: list[float], models: int = 2, second: list[int] | None = None) -> Votes:
    """Votes of the first model against others, each by a rater and on a prompt of its own."""
    n = len(outcome)
    return Votes(
        models=tuple("abc"[:models]),
        model_a=np.zeros(n, np.int64),
        model_b=np.array(second or [1] * n),
        outcome=np.array(outcome),
        rater=np.arange(n),
        prompt=np.arange(n),
        category=np.full(n, "other", object),
    )


def test_a_tie_is_half_a_win_for_each() -> None:
    tied, split = rate(votes([0.5] * 20)), rate(votes([1.0, 0.0] * 10))
    assert tied.strengths.value == pytest.approx([1000, 1000])
    assert split.strengths.value == pytest.approx([1000, 1000])


def test_a_model_that_won_every_vote_has_a_strength_and_an_honest_interval() -> None:
    found = rate(votes([1.0] * 30)).differences
    low, high = found.intervals()[0]
    assert np.isfinite([low, high]).all()
    assert 100 < low < as_elo(0.9)  # of 30 votes, the Wilson interval is 0.89 to 1
    assert high > 800


def test_models_that_never_met_are_not_connected() -> None:
    assert is_connected(votes([1.0, 0.0], 2))
    assert not is_connected(votes([1.0, 0.0], 3))
    assert is_connected(votes([1.0, 0.0], 3, second=[1, 2]))


def test_a_difference_turns_its_sign_with_the_models() -> None:
    rated = rate(Crowd(strengths=(0.5, 0.0, -0.5)).campaign(np.random.default_rng(0)))
    there, back = rated.difference(0, 2), rated.difference(2, 0)
    assert there.value == pytest.approx(-back.value)
    assert there.value[0] == pytest.approx(rated.strengths.value[0] - rated.strengths.value[2])
    assert there.intervals()[0] == pytest.approx(-back.intervals()[0][::-1])
