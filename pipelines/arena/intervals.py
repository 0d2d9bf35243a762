"""Intervals over raters and prompts, since votes of one rater, or on one prompt, are alike.

The variance is that of two-way clusters (Cameron, Gelbach and Miller 2011): the variance of leaving
out each rater in turn, plus that of leaving out each prompt, less that of leaving out what one
rater says of one prompt. Leaving out whole clusters, a jackknife, is the resampling that keeps its
level with few of them (MacKinnon, Nielsen and Webb, arXiv 2406.08880); resampling both at once with
replacement counts the noise of single votes up to three times (Owen 2007, arXiv 0712.1111).

Ours are: 1. Student's t has degrees of freedom after Satterthwaite (1946), with the kurtosis of
single answers where these are many; the literature takes the smaller number of clusters less one,
which is too wide when the other kind of cluster decides. 2. The variance is no less than `LEAST` of
that of leaving out single answers, since the difference above can be near 0 by chance with few
raters. 3. Near-unanimous votes, of which leaving out says nothing, have the variance of independent
votes. `benchmarks/compare.py` measures the coverage.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pipelines.arena.votes import Indices, Values

LEAST = 0.3
"""Least variance, as a share of that of leaving out single answers."""
MANY_ANSWERS = 50
"""Answers from which their kurtosis can be told."""

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
        half = -stdtrit(self.df, (1 - level) / 2) * np.sqrt(self.variance)
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
    answers = _moves(sums, rater * (prompt.max() + 1) + prompt, statistic, value)
    single = _variance(answers)
    ways = [_moves(sums, cluster, statistic, value) for cluster in (rater, prompt)]
    ways = [moves for moves in ways if len(moves) > 1]
    if not ways:
        unknown = np.full(value.shape, np.nan)
        return Estimates(value, unknown, unknown)
    both = sum(_variance(moves) for moves in ways) - (len(ways) - 1) * single
    noise = sum(_noise(moves, answers) for moves in ways)
    at_least_single = np.maximum(both, single)
    variance = np.maximum(both, LEAST * single)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(noise > 0, np.maximum(at_least_single**2 / noise, 1.0), np.inf)
    unanimous = single < LEAST * independent
    variance = np.where(unanimous, np.maximum(variance, independent), variance)
    df = np.where(unanimous, np.inf, df)
    return Estimates(value, variance, df)


def _moves(sums: Values, cluster: Indices, statistic: Statistic, value: Values) -> Values:
    """Return by how much leaving out each cluster moves the figures, [C, Q]; none for one."""
    _, numbers = np.unique(cluster, return_inverse=True)
    parts = np.stack([np.bincount(numbers, column) for column in sums.T], axis=1)
    if len(parts) == 1:
        return np.zeros((1, len(value)))
    return np.asarray(statistic(parts.sum(0) - parts) - value)


def _variance(moves: Values) -> Values:
    """Return the variance [Q] by the jackknife."""
    n = len(moves)
    return np.asarray((n - 1) / n * (moves**2).sum(0))


def _noise(moves: Values, answers: Values) -> Values:
    """Return half the variance [Q] of a variance by leaving out clusters.

    For normal moves it is V^2 / (C - 1). The part of them that is single answers has the kurtosis
    of these: two values are as little spread as can be.
    """
    single = _variance(answers)
    variance = np.maximum(_variance(moves), single)
    n = len(answers)
    if n < MANY_ANSWERS:
        return np.asarray(variance**2 / (len(moves) - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        kurtosis = np.nan_to_num((answers**4).mean(0) / (answers**2).mean(0) ** 2 - 3)
        share = np.nan_to_num(single / variance) ** 2
    spread = 1 / (len(moves) - 1) + share * kurtosis / (2 * n)
    # of single answers alone it is 0 but for rounding
    return np.asarray(variance**2 * np.where(spread > 1 / n**1.5, spread, 0))


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
