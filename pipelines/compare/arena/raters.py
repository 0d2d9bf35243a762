"""Agreement of raters on pairs of images: alpha, disputes, and raters who answer at random."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from data.intervals import wilson_interval
from data.quality.agreement import alpha_with_interval
from pipelines.compare.arena.figures import RaterRow
from pipelines.compare.arena.votes import Values, Votes

FEWEST_COMPARED = 20
"""Least number of decided votes to classify a rater as answering at random."""
SAME_SIDE = 0.95
"""Share of votes for one side above which a rater is taken to ignore the images."""


def rater_figures(
    votes: Votes, flags: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> list[RaterRow]:
    """Return the figures of each rater with votes, most votes first; `flags` are by rater.

    A vote is compared with the majority of the other raters on the same pair of images.
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
        is_one_sided = len(sides) >= FEWEST_COMPARED and abs(sides.mean() - 0.5) >= SAME_SIDE - 0.5
        is_as_chance = n >= FEWEST_COMPARED and low <= 0.5 and high < share_of_all
        one = RaterRow(
            rater_id=votes.raters[rater],
            n=int(own.sum()),
            compared=n,
            agreed=met,
            interval=(low, high),
            left=float(sides.mean()) if len(sides) else None,
            by_chance=bool(is_one_sided or is_as_chance),
            flags=flags.get(votes.raters[rater], ()),
        )
        found.append(one)
    return sorted(found, key=lambda one: (-one.n, one.rater_id))


def left_wins(votes: Votes) -> Values:
    """Return [N]: 1 if the left image is preferred, 0.5 for a tie, else 0."""
    return np.where(votes.a_is_left, votes.outcome, 1 - votes.outcome)


def agreement(votes: Votes, rng: np.random.Generator) -> dict[str, Any]:
    """Return Krippendorff's alpha of the pairs of images with two votes or more.

    The scale is ordinal: first, tie, second. Keys as in
    `data.quality.agreement.alpha_with_interval`.
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


def disputes(votes: Votes) -> pd.DataFrame:
    """Return votes for the `first` image, `ties`, and votes for the `second`, by disputed pair.

    Pairs are sorted from most to least even, then by falling number of votes.
    """
    counts = pd.crosstab(np.array(votes.pairs, object)[votes.pair], votes.outcome)
    counts = counts.reindex(columns=[1.0, 0.5, 0.0], fill_value=0)
    counts.columns = pd.Index(["first", "ties", "second"])
    found = counts[(counts["first"] > 0) & (counts["second"] > 0)]
    decided = found["first"] + found["second"]
    order = found.assign(lead=(found["first"] - found["second"]).abs() / decided, n=-decided)
    return found.loc[order.sort_values(["lead", "n"], kind="stable").index]
