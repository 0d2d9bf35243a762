"""Number of votes that a campaign needs, estimated before and during labeling.

Let a model win a share p of n votes, spread evenly over R raters and P prompts. The share varies
between raters and between prompts, with the standard deviations rater_spread and prompt_spread.
Then the variance of the observed share is

    v / n * (1 + (n / R - 1) rater_spread^2 / v + (n / P - 1) prompt_spread^2 / v),
    v = p (1 - p) - ties / 4,

The power is the power of a noncentral t test with the degrees of freedom and Wilson's bound of
`intervals.py`. For many votes, raters and prompts limit the precision. `benchmarks/compare.py`
compares these estimates with simulated campaigns.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from pipelines.compare.arena.intervals import FEWEST, noise_of

MOST_VOTES = 100_000
"""Largest number of votes that is printed as a plan."""
MOST_TIMES = 10
"""Largest forecast that is printed, as a multiple of the current number of votes."""


@dataclass(frozen=True)
class Design:
    """Raters and prompts of a campaign, and the correlation of their votes."""

    raters: int
    prompts: int
    rater_spread: float = 0.05
    """Standard deviation over raters of the share of votes for a model."""
    prompt_spread: float = 0.15
    """Standard deviation over prompts of the share of votes for a model."""
    ties: float = 0.1
    """Share of votes that are ties."""


def power(share: float, votes: int, design: Design) -> float:
    """Return the probability that the 95 % interval excludes a tie if `share` is true."""
    single = max(share * (1 - share) - design.ties / 4, 1e-6)
    both, noise = -1.0, 0.0
    for n, spread in ((design.raters, design.rater_spread), (design.prompts, design.prompt_spread)):
        clusters = min(n, votes)
        ratio = 1 + spread**2 / single * (votes / clusters - 1)
        both += ratio
        noise += float(noise_of(np.array(ratio), clusters, votes))
    df = max(both**2 / max(noise, 1e-6), 1)
    bound = stdtrit(df, 0.975) * 0.5 / np.sqrt(share * (1 - share))
    ahead = (share - 0.5) / np.sqrt(single * both / votes)
    width = np.sqrt(1 + bound**2 / (2 * df))
    # Johnson and Welch's approximation of the noncentral t, which is NaN in scipy at large `ahead`
    low, high = (side * bound * (1 - 1 / (4 * df)) - ahead for side in (-1, 1))
    return float(ndtr(low / width) + ndtr(-high / width))


def votes_needed(share: float, design: Design, wanted: float = 0.8) -> int | None:
    """Return the number of votes for this power; None beyond `MOST_VOTES`."""
    low, high = FEWEST, MOST_VOTES
    if power(share, high, design) < wanted:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(share, middle, design) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def votes_to_decide(difference: float, bounds: tuple[float, float], votes: int) -> int | None:
    """Return the approximate total of votes that exclude 0, if the current difference is true.

    The interval is assumed to shrink with the square root of the votes. Return None above
    `MOST_TIMES` times the current votes.
    """
    half = (bounds[1] - bounds[0]) / 2
    times = max(1.0, half / max(abs(difference), 1e-9)) ** 2
    return None if times > MOST_TIMES else int(np.ceil(votes * times))
