"""Slates of sessions: at most one candidate a category, with the stated probabilities."""

import itertools
import math
import random
from collections import Counter

import pytest

from reward.sessions.slates import draw_slate
from tests.support.session_turns import CANDIDATES, VALUES


def test_without_temperature_the_best_of_each_category_are_shown_in_order() -> None:
    slate = draw_slate(CANDIDATES, VALUES, temperature=0, rng=random.Random(0), columns=2)
    assert [one.place for one in slate] == [None, 0, 1, None]
    assert [one.chance for one in slate] == [None, 1.0, 1.0, None]


def test_slates_are_drawn_as_often_as_their_chances_say() -> None:
    rng, draws = random.Random(0), 20_000
    counts: Counter[tuple[str, ...]] = Counter()
    stated = {}
    for _ in range(draws):
        slate = draw_slate(CANDIDATES, VALUES, temperature=1, rng=rng, columns=2)
        shown = sorted((one.place, one.prompt) for one in slate if one.place is not None)
        names = tuple(prompt for _, prompt in shown)
        counts[names] += 1
        stated[names] = math.prod(one.chance for one in slate if one.chance is not None)
    assert len(stated) == len(set(itertools.permutations("abcd", 2)) - {("a", "b"), ("b", "a")})
    assert sum(stated.values()) == pytest.approx(1)
    for names, chance in stated.items():
        assert counts[names] / draws == pytest.approx(chance, abs=4 * (chance / draws) ** 0.5)
