"""Slates: which candidates of a turn are shown, in which columns, and with what probability.

A slate has at most one candidate of each category. The mean of its candidates' values is its value,
so that the best slate is found by sorting (Nabati et al. 2025, arXiv 2412.10419). A slate that
explores is drawn column by column (Plackett-Luce):

    P(candidate at this column | columns before) = softmax(value / temperature)

over the candidates whose category is not on the slate yet. The product over the columns is the
probability of the slate, which estimates from logged sessions need.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from scipy.special import softmax

from data.sessions import COLUMNS, Candidate, Session
from reward.calibration import Values


class Policy(Protocol):
    """Values candidates; the higher a value, the more likely a candidate is shown."""

    @property
    def name(self) -> str:
        """Name and version, as they stand in `Turn.policy`."""

    @property
    def temperature(self) -> float:
        """Temperature of `draw_slate`."""

    def values(
        self, session: Session, prompt: str, candidates: Sequence[Candidate]
    ) -> Sequence[float]:
        """Return a value for each candidate of a turn that begins with `prompt`.

        `session` has the answered turns that lead to this one.
        """


class RandomPolicy:
    """Every slate is equally likely within its categories."""

    name, temperature = "random", 1.0

    def values(
        self,
        session: Session,  # noqa: ARG002 - of the protocol
        prompt: str,  # noqa: ARG002
        candidates: Sequence[Candidate],
    ) -> Sequence[float]:
        """Return equal values."""
        return [0.0] * len(candidates)


def draw_slate(
    candidates: Sequence[Candidate],
    values: Sequence[float],
    *,
    temperature: float,
    rng: random.Random,
    columns: int = COLUMNS,
) -> tuple[Candidate, ...]:
    """Return the candidates with their values, and with places and chances where they are shown.

    Temperature 0 shows the highest values in their order, each with chance 1. There are fewer
    columns where there are fewer categories.
    """
    shown = [replace(one, value=value) for one, value in zip(candidates, values, strict=True)]
    left = list(range(len(shown)))
    for place in range(columns):
        if not left:
            break
        chances = _chances([values[number] for number in left], temperature)
        drawn = rng.choices(range(len(left)), weights=chances.tolist())[0]
        number = left[drawn]
        shown[number] = replace(shown[number], place=place, chance=float(chances[drawn]))
        left = [one for one in left if shown[one].category != shown[number].category]
    return tuple(shown)


def slate_chance(
    candidates: Sequence[Candidate], values: Sequence[float], *, temperature: float
) -> float:
    """Return the probability that `draw_slate` shows the slate that the candidates' places say."""
    placed = [(one.place, number) for number, one in enumerate(candidates) if one.place is not None]
    left, chance = list(range(len(candidates))), 1.0
    for _, number in sorted(placed):
        if number not in left:
            return 0.0
        chances = _chances([values[one] for one in left], temperature)
        chance *= float(chances[left.index(number)])
        left = [one for one in left if candidates[one].category != candidates[number].category]
    return chance


def mean_slate_value(
    candidates: Sequence[Candidate],
    values: Sequence[float],
    of: Sequence[float],
    *,
    temperature: float,
    columns: int = COLUMNS,
) -> float:
    """Return the mean over slates of `draw_slate` of a slate's value, by exact summation.

    `values` draw the slate, the mean of `of` over the slate is its value. The sum runs over the
    sets of categories that can be on the slate after each column.
    """
    categories = sorted({one.category for one in candidates})
    shown = min(columns, len(categories))
    sets: dict[frozenset[str], float] = {frozenset(): 1.0}
    total = 0.0
    for _ in range(shown):
        following: dict[frozenset[str], float] = {}
        for used, chance in sets.items():
            left = [k for k, one in enumerate(candidates) if one.category not in used]
            chances = _chances([values[k] for k in left], temperature)
            total += chance * float(chances @ [of[k] for k in left])
            for k, each in zip(left, chances.tolist(), strict=True):
                reached = used | {candidates[k].category}
                following[reached] = following.get(reached, 0.0) + chance * each
        sets = following
    return total / shown


def _chances(values: Sequence[float], temperature: float) -> Values:
    """Return the probability of each candidate at a column, [n]."""
    if temperature == 0:
        chances = np.zeros(len(values))
        chances[int(np.argmax(values))] = 1.0
        return chances
    found: Values = softmax(np.array(values) / temperature)
    return found
