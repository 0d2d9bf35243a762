"""Habits of raters who do not look: answers in tenths of a second, or always the same position.

All tests are exact. Their level is so low that repeated tests of twenty honest raters raise no
flag.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from data.quality.judgments import RATER_KEY, Judgments

QUICK_MS = 500
"""Milliseconds per image that are too short to read a prompt and judge. Trained people need 450 to
detect an animal and press a key (Thorpe et al. 1996), without a prompt to read."""

TOLERATED = 0.1
"""Share of quick answers that is tolerated as accidental."""

LEVEL = 0.001
"""Level of the tests."""

QUICK, FIRST_PLACE, ONE_SIDE = "quick", "first_place", "one_side"
"""Names of the habits."""


def habits_of(judgments: Judgments) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return each rater's habits (`RATER_KEY` to names), by tests at the level `LEVEL`.

    `quick`: a binomial test of the answers below `QUICK_MS` per image against the share
    `TOLERATED`. `first_place`: a Poisson binomial test of the wins of the image shown first.
    `one_side`: a binomial test of the comparisons won by the image at the left against one half.
    """
    tests = {QUICK: _quick, FIRST_PLACE: _first_place, ONE_SIDE: _one_side}
    found = pd.concat({name: p(judgments) for name, p in tests.items()}, axis="columns")
    flags = [tuple(name for name in tests if row[name] < LEVEL) for row in found.to_dict("records")]
    return dict(zip(found.index, flags, strict=True))


def _quick(judgments: Judgments) -> "pd.Series[float]":
    columns = [*RATER_KEY, "time_on_task_ms"]
    tables = [
        table[columns].assign(images=table["image_ids"].map(len) if "image_ids" in table else 1)
        for table in judgments.labels.values()
    ]
    timed = pd.concat(tables).dropna(subset=["time_on_task_ms"])
    is_quick = timed["time_on_task_ms"].astype("float64") < QUICK_MS * timed["images"].astype(int)
    counts = timed.assign(quick=is_quick).groupby(RATER_KEY)["quick"].agg(["size", "sum"])
    p = [
        float(binomtest(int(quick), int(n), TOLERATED, alternative="greater").pvalue)
        for n, quick in counts.itertuples(index=False)
    ]
    return pd.Series(p, counts.index, "float64")


def _first_place(judgments: Judgments) -> "pd.Series[float]":
    found = judgments.won.groupby(RATER_KEY).agg(images=("images", list), wins=("first", "sum"))
    rows = found.itertuples(index=False)
    p = [first_place_p(np.array(images), int(wins)) for images, wins in rows]
    return pd.Series(p, found.index, "float64")


def _one_side(judgments: Judgments) -> "pd.Series[float]":
    given = judgments.labels["comparison"]
    rows = given[given["answer"].isin(["first", "second"])]
    is_left = (rows["shown_order"].map(lambda order: order[0]) == 0) == (rows["answer"] == "first")
    found = rows.assign(left=is_left).groupby(RATER_KEY)["left"].agg(["size", "sum"])
    p = [float(binomtest(int(left), int(n)).pvalue) for n, left in found.itertuples(index=False)]
    return pd.Series(p, found.index, "float64")


def first_place_p(sizes: NDArray[np.int64], wins: int) -> float:
    """Return the probability of at least `wins` first places, each of chance 1 over its size.

    It is exact: the distribution of the sum of binomials, one for each size.
    """
    total = np.ones(1)
    for size, n in zip(*np.unique(sizes, return_counts=True), strict=True):
        total = np.convolve(total, binom.pmf(np.arange(n + 1), n, 1 / size))
    return float(total[wins:].sum())
