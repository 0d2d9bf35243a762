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
        if temperature == 0:
            chances = np.zeros(len(left))
            chances[int(np.argmax([values[number] for number in left]))] = 1.0
        else:
            chances = softmax(np.array([values[number] for number in left]) / temperature)
        drawn = rng.choices(range(len(left)), weights=chances.tolist())[0]
        number = left[drawn]
        shown[number] = replace(shown[number], place=place, chance=float(chances[drawn]))
        left = [one for one in left if shown[one].category != shown[number].category]
    return tuple(shown)
