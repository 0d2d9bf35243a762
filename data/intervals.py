"""95 % intervals of shares and of means."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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


def share_interval_over_groups(
    met: Sequence[int], sizes: Sequence[int]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a share over clustered answers, for new groups of the same kind.

    Wilson's interval with the effective sample size (the number of independent answers with the
    same variance) and Student's t for the few groups (Korn and Graubard 1998, Survey Methodology
    24). None for fewer than two groups.

    Args:
        met: number of successes in each group.
        sizes: size of each group, at least 1.
    """
    if len(sizes) < 2:
        return None
    from scipy.stats import t as student  # noqa: PLC0415 - takes a second

    groups, total = len(sizes), sum(sizes)
    share = sum(met) / total
    residuals: NDArray[np.float64] = np.subtract(met, share * np.asarray(sizes))
    variance = groups / (groups - 1) * float(residuals @ residuals) / total**2
    n = float(groups if share in (0.0, 1.0) else total)
    if variance > 0:
        n = min(n, share * (1 - share) / variance)
    z = float(student.ppf(0.975, groups - 1))
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(max(0.0, center - half)), float(min(1.0, center + half))
