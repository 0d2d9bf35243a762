"""95 % intervals of shares and of means."""

from collections.abc import Sequence

import numpy as np


def wilson_interval(met: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of the share `met` of `n` (Wilson 1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # noqa: PLC0415 - takes a second

    interval = binomtest(met, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of independent values (Student's t).

    None for fewer than two values.
    """
    if len(values) < 2:
        return None
    from scipy.stats import t as student  # noqa: PLC0415 - takes a second

    mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    half = student.ppf(0.975, len(values) - 1) * error
    return float(mean - half), float(mean + half)
