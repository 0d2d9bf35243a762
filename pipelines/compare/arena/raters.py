"""Agreement of raters on pairs of images: alpha, disputes, and raters who answer by chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from data.intervals import wilson_interval
from data.quality.agreement import alpha_with_interval
from pipelines.compare.arena.figures import RaterRow
from pipelines.compare.arena.votes import Values, Votes

FEWEST_COMPARED = 20
"""Fewest decided votes from which a rater can be said to answer by chance."""
SAME_SIDE = 0.95
"""Share of decided votes for one side from which the images do not matter."""


def rater_figures(
    votes: Votes, flags: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> list[RaterRow]:
    """Return the figures of each rater with votes, most votes first, and the `flags` by rater.

    A vote is compared with the majority of the others' on the same pair of images.
    """
    lean = votes.outcome - 0.5
    others = np.bincount(votes.pair, lean, len(votes.pairs))[votes.pair] - lean
    compared = votes.is_decided & (others != 0)
    agreed = compared & (np.sign(others) == np.sign(lean))
    share_of_all = agreed.sum() / max(compared.sum(), 1)
    left = left_wins(votes)
    found = []
    for rater in np.unique(votes.rater):
        own = votes.rater == rater
        n, met = int(compared[own].sum()), int(agreed[own].sum())
        low, high = wilson_interval(met, n)
        sides = left[own & votes.is_decided]
        at_left = float(sides.mean()) if len(sides) else None
        is_one_sided = len(sides) >= FEWEST_COMPARED and abs(sides.mean() - 0.5) >= SAME_SIDE - 0.5
        is_as_chance = n >= FEWEST_COMPARED and low <= 0.5 and high < share_of_all
        rater_id = votes.raters[rater]
        one = RaterRow(
            rater_id=rater_id,
            n=int(own.sum()),
            compared=n,
            agreed=met,
            interval=(low, high),
            left=at_left,
            by_chance=bool(is_one_sided or is_as_chance),
            flags=flags.get(rater_id, ()),
        )
        found.append(one)
    return sorted(found, key=lambda one: (-one.n, one.rater_id))


def left_wins(votes: Votes) -> Values:
    """Return 1 where the image at the left is preferred, 0.5 for a tie, [N]."""
    return np.where(votes.a_is_left, votes.outcome, 1 - votes.outcome)


def agreement(votes: Votes, rng: np.random.Generator) -> dict[str, Any]:
    """Return Krippendorff's alpha of the pairs of images with two votes or more.

    It is ordinal: first, tie, second. Keys as of `data.quality.agreement.alpha_with_interval`.
    """
    rows = pd.DataFrame(
        {
            "unit": votes.pair,
            "value": (2 * votes.outcome).astype(np.int64),
            "task_id": votes.pair,
            "label_id": np.arange(len(votes)),
        }
    )
    shared = rows[rows.groupby("unit")["value"].transform("size") > 1]
    return alpha_with_interval(shared, "ordinal", rng)


@dataclass(frozen=True)
class Dispute:
    """A pair of images of which some raters prefer one and some the other."""

    pair: str
    """Id of the task."""
    first: int
    """Votes for the first image."""
    ties: int
    second: int


def disputes(votes: Votes) -> list[Dispute]:
    """Return the disputed pairs, the most even and then those with most votes first."""
    counts = np.zeros((len(votes.pairs), 3), int)
    np.add.at(counts, (votes.pair, (2 * votes.outcome).astype(int)), 1)
    found = [
        Dispute(votes.pairs[i], int(counts[i, 2]), int(counts[i, 1]), int(counts[i, 0]))
        for i in np.flatnonzero((counts[:, 0] > 0) & (counts[:, 2] > 0))
    ]

    def order(one: Dispute) -> tuple[float, int, str]:
        decided = one.first + one.second
        return abs(one.first - one.second) / decided, -decided, one.pair

    return sorted(found, key=order)
