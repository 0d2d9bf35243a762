"""Intervals over raters and prompts, since votes of one rater, or on one prompt, are alike.

The variance is that of two-way clusters (Cameron, Gelbach and Miller 2011): the variance of leaving
out each rater in turn, plus that of leaving out each prompt, less that of leaving out what one
rater says of one prompt. Leaving out whole clusters, a jackknife, is the resampling that keeps its
level with few of them (MacKinnon, Nielsen and Webb, arXiv 2406.08880); resampling both at once with
replacement counts the noise of single votes up to three times (Owen 2007, arXiv 0712.1111).

Ours are: 1. Student's t has degrees of freedom after Satterthwaite (1946), where the literature
takes the smaller number of clusters less one, which is too wide when the other kind of cluster
decides; 2. the variance is no less than `LEAST` of that of leaving out single answers, since the
difference above can be near 0 by chance with few raters; 3. near-unanimous votes, of which leaving
out says nothing, have the variance of independent votes. `benchmarks/compare.py` measures the
coverage.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from pipelines.arena.votes import Indices, Values

LEAST = 0.3
"""Least variance, as a share of that of leaving out single answers."""

Statistic = Callable[[Values], Values]
"""Turns sums over votes, [M, D], into figures, [M, Q]; each row on its own."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """Figures with their uncertainty; arrays are [Q]."""

    value: Values
    variance: Values
    """NaN where there is one rater with one prompt."""
    df: Values
    """Degrees of freedom of the variance."""

    def intervals(self, level: float = 0.95) -> Values:
        """Return the bounds, [Q, 2]."""
        half = student.isf((1 - level) / 2, self.df) * np.sqrt(self.variance)
        return np.stack([self.value - half, self.value + half], axis=-1)


def clustered(
    sums: Values,
    rater: Indices,
    prompt: Indices,
    statistic: Statistic,
    independent: Values,
) -> Estimates:
    """Return the figures of all votes with their variance over raters and prompts.

    With a single rater the variance is over prompts alone, and the other way round.

    Args:
        sums: [N, D], what each vote adds to the sums.
        rater: [N], the rater of each vote.
        prompt: [N], its prompt.
        statistic: the figures of sums.
        independent: [Q], the variances if votes were independent.
    """
    value = statistic(sums.sum(0, keepdims=True))[0]
    answers = rater * (prompt.max() + 1) + prompt
    parts = [_parts(sums, one) for one in (rater, prompt, answers)]
    *ways, single = [_left_out(one, statistic, value) for one in parts]
    known = [(way, len(one)) for way, one in zip(ways, parts, strict=False) if len(one) > 1]
    if not known:
        unknown = np.full(value.shape, np.nan)
        return Estimates(value, unknown, unknown)
    both = sum(way for way, _ in known) - (len(known) - 1) * single
    noise = sum(np.maximum(way, single) ** 2 / (n - 1) for way, n in known)
    at_least_single = np.maximum(both, single)
    variance = np.maximum(both, LEAST * single)
    variance = np.where(single < LEAST * independent, np.maximum(variance, independent), variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(noise > 0, np.maximum(at_least_single**2 / noise, 1.0), np.inf)
    return Estimates(value, variance, df)


def _parts(sums: Values, cluster: Indices) -> Values:
    """Return the sums of each cluster, [C, D]."""
    _, numbers = np.unique(cluster, return_inverse=True)
    return np.stack([np.bincount(numbers, column) for column in sums.T], axis=1)


def _left_out(parts: Values, statistic: Statistic, value: Values) -> Values:
    """Return the variance [Q] of leaving out each cluster in turn (the jackknife)."""
    n = len(parts)
    squares = (statistic(parts.sum(0) - parts) - value) ** 2
    return np.asarray((n - 1) / n * squares.sum(0))


def log_odds(sums: Values) -> Values:
    """Return the log-odds [M, 1] of wins and losses [M, 2], with half a win and a loss added."""
    return np.log((sums[:, :1] + 0.5) / (sums[:, 1:] + 0.5))


@dataclass(frozen=True)
class Share:
    """A share of votes, ties counting half."""

    value: float
    n: int
    interval: tuple[float, float] | None


def share_of(won: Values, rater: Indices, prompt: Indices, level: float = 0.95) -> Share | None:
    """Return the mean of `won` [N], each in [0, 1], with its interval; None for no votes.

    The interval is that of the log-odds, so it stays within 0 and 1.
    """
    if not len(won):
        return None
    wins, losses = won.sum() + 0.5, (1 - won).sum() + 0.5
    independent = np.array([1 / wins + 1 / losses])
    found = clustered(np.stack([won, 1 - won], 1), rater, prompt, log_odds, independent)
    low, high = 1 / (1 + np.exp(-found.intervals(level)[0]))
    known = bool(np.isfinite(low))
    return Share(float(won.mean()), len(won), (float(low), float(high)) if known else None)
