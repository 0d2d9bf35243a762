"""Intervals over raters and prompts, since votes of one rater or on one prompt are correlated.

The variance is for two-way clusters (Cameron, Gelbach and Miller 2011): the variance of leaving out
each rater in turn, plus the variance of leaving out each prompt, less the variance of leaving out
one rater's votes on one prompt. This jackknife over clusters keeps its level with few clusters
(MacKinnon, Nielsen and Webb, arXiv 2406.08880). Resampling raters and prompts at once with
replacement counts the noise of single votes up to three times (Owen 2007, arXiv 0712.1111), which
costs power: `benchmarks/compare.py` measures both.

The interval of a share is Wilson's (1927) with the number of independent votes that would have this
variance, as for surveys (Korn and Graubard 1998); Wilson's interval is also valid for few votes. A
difference of strengths is converted to the share of votes that a model wins, and its interval is
the converted interval of that share.

Differs from the literature in: 1. Student's t in place of the normal quantile, with degrees of
freedom after Satterthwaite (1946), of the variance beyond independent votes, which Wilson's
interval includes; the literature uses the smaller number of clusters less one, which is too wide if
the other kind of cluster has most of the variance. 2. The variance is no less than `LEAST` times
the variance of leaving out single votes, since with few raters the difference above can be near 0
by chance. 3. Near-unanimous votes, whose jackknife is uninformative, have the variance of
independent votes.

`always_valid` holds for any number of looks, so a campaign can stop when enough is known. It is the
mixture of Robbins (1970), as in Johari, Pekelis and Walsh (2017, arXiv 1512.04922). A normal prior
with standard deviation `tau` over the true difference turns the estimate d with variance V into a
likelihood ratio against each difference,

    L(x) = sqrt(V / (V + tau^2)) * exp(tau^2 (d - x)^2 / (2 V (V + tau^2))),

which by Ville's inequality exceeds 1 / alpha at some look with probability at most alpha. The
interval holds all x with L(x) < 1 / alpha, and is shortest for differences of about `tau`. The
estimate must behave like a sum of independent terms, which holds for large samples (Waudby-Smith et
al. 2021, arXiv 2103.06476). V has few degrees of freedom at first, so the normal bound is replaced
by the t quantile of the same probability, and there is no interval before `FEWEST` raters and
prompts. `benchmarks/compare.py` measures the level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr, stdtrit

from pipelines.compare.arena.figures import Interval, ShareFigures
from pipelines.compare.arena.votes import Indices, Values

FEWEST = 5
"""Least number of raters, and of prompts, for an always-valid interval."""

LEAST = 0.3
"""Least variance, as a share of the variance of leaving out single votes."""

Statistic = Callable[[Values], Values]
"""Turns sums over votes [M, D] into log-odds [M, Q], row by row."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """Log-odds with uncertainty, as shares and on a scale; arrays are [Q]."""

    share: Values
    """The log-odds as shares of votes won."""
    share_variance: Values
    """Variance of the shares; NaN with one rater and one prompt."""
    df: Values
    """Degrees of freedom of the variance."""
    unit: float = 1.0
    """Points of the scale per unit of log-odds."""
    middle: float = 0.0
    """Value of log-odds 0 on the scale."""

    @property
    def value(self) -> Values:
        """The log-odds on the scale."""
        return np.asarray(self.middle + self.unit * logit(self.share))

    @property
    def variance(self) -> Values:
        """Variance of `value`, valid for many votes."""
        return np.asarray(self.share_variance * (self.unit / (self.share * (1 - self.share))) ** 2)

    def shares(self, level: float = 0.95) -> Values:
        """Return the bounds of the shares, [Q, 2]."""
        votes = self.share * (1 - self.share) / self.share_variance
        least = stdtrit(self.df, (1 - level) / 2) ** 2 / votes
        half = np.sqrt(least * (self.share * (1 - self.share) + least / 4))
        ends = [self.share + least / 2 + sign * half for sign in (-1, 1)]
        return np.asarray(np.stack(ends, axis=-1) / (1 + least[:, None]))

    def intervals(self, level: float = 0.95) -> Values:
        """Return the bounds on the scale, [Q, 2]."""
        return np.asarray(self.middle + self.unit * logit(self.shares(level)))

    def part(self, at: slice, **changes: Any) -> "Estimates":
        """Return the figures `at` a slice; `changes` can set another scale."""
        known = {"unit": self.unit, "middle": self.middle} | changes
        return Estimates(self.share[at], self.share_variance[at], self.df[at], **known)


def clustered(
    sums: Values,
    rater: Indices,
    prompt: Indices,
    statistic: Statistic,
    independent: Values,
) -> Estimates:
    """Return the figures of all votes with their variance over raters and prompts.

    With a single rater the variance is over prompts alone, and with a single prompt over raters.

    Args:
        sums: [N, D], the contribution of each vote to the sums.
        rater: [N], the rater of each vote.
        prompt: [N], the prompt of each vote.
        statistic: turns sums into log-odds.
        independent: [Q], variances of the log-odds if votes were independent.
    """

    def shares(some: Values) -> Values:
        return np.asarray(expit(statistic(some)))

    share = shares(sums.sum(0, keepdims=True))[0]
    votes, answers, *ways = (
        _moves(sums, cluster, shares, share)
        for cluster in (np.arange(len(sums)), rater * (prompt.max() + 1) + prompt, rater, prompt)
    )
    ways = [moves for moves in ways if len(moves) > 1]
    if not ways:
        unknown = np.full(share.shape, np.nan)
        return Estimates(share, unknown, unknown)
    single = _variance(votes)
    both = sum(_variance(moves) for moves in ways) - (len(ways) - 1) * _variance(answers)
    noise = sum(_noise(moves, votes) for moves in ways)
    variance = np.maximum(both, LEAST * single)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(noise > 0, np.maximum(np.maximum(both, single) ** 2 / noise, 1.0), np.inf)
    alone = independent * (share * (1 - share)) ** 2
    unanimous = single < LEAST * alone
    variance = np.where(unanimous, np.maximum(variance, alone), variance)
    return Estimates(share, variance, np.where(unanimous, np.inf, df))


def _moves(sums: Values, cluster: Indices, shares: Statistic, share: Values) -> Values:
    """Return the change of the shares without each cluster, [C, Q]; C is 0 for a single cluster."""
    order = np.argsort(cluster, kind="stable")
    _, starts = np.unique(cluster[order], return_index=True)
    parts = np.add.reduceat(sums[order], starts)
    if len(parts) == 1:
        return np.zeros((1, len(share)))
    return np.asarray(shares(parts.sum(0) - parts) - share)


def _variance(moves: Values) -> Values:
    """Return the variance [Q] by the jackknife."""
    n = len(moves)
    return np.asarray((n - 1) / n * (moves**2).sum(0))


def _noise(moves: Values, votes: Values) -> Values:
    """Return half the variance [Q] of a jackknife variance V.

    For normal changes it is V^2 / (C - 1). For independent votes, the ratio of V to their variance
    has a beta distribution. Its variance is lower, and 0 if each vote is a cluster.
    """
    single, n = _variance(votes), len(moves)
    variance = np.maximum(_variance(moves), single)
    return np.asarray(
        single**2 * noise_of(variance / np.where(single > 0, single, 1), n, len(votes))
    )


def noise_of(ratio: Values, clusters: int, votes: int) -> Values:
    """Return half the variance of a variance, in units of the variance of independent votes.

    Args:
        ratio: the variance, in the same unit.
        clusters: number of clusters that are left out.
        votes: number of votes.
    """
    noise = (ratio**2 - (clusters + 1) / (votes + 1)) / (clusters - 1)
    # 0 except for rounding if each vote is a cluster
    return np.where(noise > 1e-9, noise, 0)


def log_odds(sums: Values) -> Values:
    """Return the log-odds [M, Q] of Q wins and Q losses [M, 2 Q], with 0.5 added to each count."""
    wins, losses = np.split(sums, 2, axis=1)
    return np.asarray(np.log((wins + 0.5) / (losses + 0.5)))


def share_of(won: Values, rater: Indices, prompt: Indices) -> ShareFigures | None:
    """Return the mean of `won` [N], each in [0, 1], with its 95 % interval; None for no votes.

    The half vote on each side moves the interval to the middle, so it is widened to the mean where
    needed: 0 of 2 votes are within their interval.
    """
    if not len(won):
        return None
    wins, losses = won.sum() + 0.5, (1 - won).sum() + 0.5
    independent = np.array([1 / wins + 1 / losses])
    found = clustered(np.stack([won, 1 - won], 1), rater, prompt, log_odds, independent)
    share = float(won.mean())
    bounds = bounds_of(found.shares()[0])
    interval = bounds and (min(bounds[0], share), max(bounds[1], share))
    return ShareFigures(share=share, n=len(won), interval=interval)


def bounds_of(row: Values) -> Interval:
    """Return both bounds; None if they are NaN."""
    return (float(row[0]), float(row[1])) if np.isfinite(row).all() else None


def always_valid(found: Estimates, tau: float, level: float = 0.95) -> Values:
    """Return the bounds [Q, 2] that hold at all looks together with probability `level`.

    Args:
        found: figures with their clustered variance.
        tau: difference for which the interval is shortest, in the unit of the figures.
        level: probability that all intervals of a campaign contain the true value.
    """
    ratio = found.variance / tau**2
    z = np.sqrt((1 + ratio) * (2 * np.log(1 / (1 - level)) + np.log1p(1 / ratio)))
    half = np.asarray(-stdtrit(found.df, ndtr(-z))) * np.sqrt(found.variance)
    return np.stack([found.value - half, found.value + half], axis=-1)
