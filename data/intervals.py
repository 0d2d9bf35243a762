"""Intervals of shares."""

from scipy.stats import binomtest


def wilson_interval(met: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, met of n (Wilson 1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(met, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
