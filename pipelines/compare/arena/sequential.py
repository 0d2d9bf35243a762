"""Intervals that hold however often one looks, for stopping a campaign when enough is known.

The mixture of Robbins (1970), as in Johari, Pekelis and Walsh (2017, arXiv 1512.04922): a normal
prior with standard deviation `tau` over the true difference turns the estimate d with variance V
into a likelihood ratio against each difference,

    L(x) = sqrt(V / (V + tau^2)) * exp(tau^2 (d - x)^2 / (2 V (V + tau^2))),

which by Ville's inequality exceeds 1 / alpha at some look with probability alpha at most; the
interval has all x with L(x) < 1 / alpha. It is shortest for differences of about `tau`. The
estimate need only move as a sum of independent parts would, which holds for large samples
(Waudby-Smith et al. 2021, arXiv 2103.06476). V is that of clusters, of few degrees of freedom at
first: so the bound is taken at the t that is as rare as the normal one, and nothing is said before
there are `FEWEST` of raters and prompts. `benchmarks/compare.py` measures the level.
"""

import numpy as np
from scipy.special import ndtr, stdtrit

from pipelines.compare.arena.intervals import Estimates
from pipelines.compare.arena.votes import Values

FEWEST = 5
"""Fewest raters, and fewest prompts, for an interval."""


def always_valid(found: Estimates, tau: float, level: float = 0.95) -> Values:
    """Return the bounds [Q, 2] that hold at all looks together with probability `level`.

    Args:
        found: figures with their clustered variance.
        tau: size of the differences, in the unit of the figures, for which it is shortest.
        level: probability, before labeling, that no interval ever misses.
    """
    half = factor(found.variance / tau**2, found.df, level) * np.sqrt(found.variance)
    return np.stack([found.value - half, found.value + half], axis=-1)


def factor(ratio: Values, df: Values, level: float = 0.95) -> Values:
    """Return half the interval's width in standard errors; `ratio` is V / tau^2."""
    z = np.sqrt((1 + ratio) * (2 * np.log(1 / (1 - level)) + np.log1p(1 / ratio)))
    return np.asarray(-stdtrit(df, ndtr(-z)))
