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

NO_HABITS = {"timed_n": 0, "quick_n": 0, "sided_n": 0, "left_n": 0, "flags": ()}
"""Row of a rater without labels."""


def habits_of(judgments: Judgments) -> pd.DataFrame:
    """Test each rater's habits.

    Returns:
        By rater (`RATER_KEY`): `timed_n` answers with a time and `quick_n` of them below `QUICK_MS`
        per image; `quick_p`, the p-value of the binomial test against the share `TOLERATED`;
        `first_place_p`, the p-value of the wins of the image shown first, if positions make no
        difference (Poisson binomial test); `sided_n` comparisons that prefer one of two images and
        `left_n` of them the one at the left; `one_side_p`, the p-value of the binomial test against
        one half; and `flags`, the habits found.
    """
    parts = (_quick(judgments), _first_place(judgments), _one_side(judgments))
    table = pd.concat(parts, axis="columns")
    counts = ["timed_n", "quick_n", "sided_n", "left_n"]
    table[counts] = table[counts].fillna(0).astype("int64")
    tests = {name: table[f"{name}_p"] for name in (QUICK, FIRST_PLACE, ONE_SIDE)}
    flags = [
        tuple(name for name, p in tests.items() if p.iloc[row] < LEVEL) for row in range(len(table))
    ]
    return table.assign(flags=pd.Series(flags, index=table.index, dtype=object))


def _quick(judgments: Judgments) -> pd.DataFrame:
    columns = [*RATER_KEY, "time_on_task_ms"]
    tables = [
        table[columns].assign(images=table["image_ids"].map(len) if "image_ids" in table else 1)
        for table in judgments.labels.values()
    ]
    timed = pd.concat(tables).dropna(subset=["time_on_task_ms"])
    is_quick = timed["time_on_task_ms"].astype("float64") < QUICK_MS * timed["images"].astype(int)
    counts = timed.assign(quick=is_quick).groupby(RATER_KEY)["quick"].agg(["size", "sum"])
    found = counts.rename(columns={"size": "timed_n", "sum": "quick_n"})
    p = [
        float(binomtest(int(quick), int(n), TOLERATED, alternative="greater").pvalue)
        for n, quick in found.itertuples(index=False)
    ]
    return found.assign(quick_p=np.array(p, float))


def _first_place(judgments: Judgments) -> pd.DataFrame:
    found = judgments.won.groupby(RATER_KEY).agg(images=("images", list), wins=("first", "sum"))
    rows = found.itertuples(index=False)
    p = [first_place_p(np.array(images), int(wins)) for images, wins in rows]
    return found.assign(first_place_p=np.array(p, float))[["first_place_p"]]


def _one_side(judgments: Judgments) -> pd.DataFrame:
    given = judgments.labels["comparison"]
    rows = given[given["answer"].isin(["first", "second"])]
    is_left = (rows["shown_order"].map(lambda order: order[0]) == 0) == (rows["answer"] == "first")
    found = rows.assign(left=is_left).groupby(RATER_KEY)["left"].agg(sided_n="size", left_n="sum")
    p = [float(binomtest(int(left), int(n)).pvalue) for n, left in found.itertuples(index=False)]
    return pd.DataFrame(found).assign(one_side_p=np.array(p, float))


def first_place_p(sizes: NDArray[np.int64], wins: int) -> float:
    """Return the probability of at least `wins` first places, each of chance 1 over its size.

    It is exact: the distribution of the sum of binomials, one for each size.
    """
    total = np.ones(1)
    for size, n in zip(*np.unique(sizes, return_counts=True), strict=True):
        total = np.convolve(total, binom.pmf(np.arange(n + 1), n, 1 / size))
    return float(total[wins:].sum())
