"""Votes that a campaign needs, before anyone labels and while labels come in.

Of two models one wins a share p of n votes, which are spread evenly over R raters and P prompts.
With the standard deviation of a rater's own share about it, and of a prompt's, the variance of the
share found is

    v / n * (1 + (n / R - 1) rater_spread^2 / v + (n / P - 1) prompt_spread^2 / v),
    v = p (1 - p) - ties / 4,

and the power is taken from a noncentral t test with the degrees of freedom of `intervals.py`, whose
bound is Wilson's. However many votes, raters and prompts set a floor. `benchmarks/compare.py`
measures how far this is from what campaigns find.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from pipelines.compare.arena.intervals import FEWEST, noise_of

MOST_VOTES = 100_000
"""Largest plan that is worth printing, in votes."""
MOST_TIMES = 10
"""Largest forecast that is worth printing, in times the present votes."""


@dataclass(frozen=True)
class Design:
    """Raters and prompts of a campaign, and how alike their votes are."""

    raters: int
    prompts: int
    rater_spread: float = 0.05
    """Standard deviation over raters of the share in which they prefer a model."""
    prompt_spread: float = 0.15
    """The same over prompts: a model is better at some than at others."""
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
    """Return the votes between two models that have this power; None beyond `MOST_VOTES`."""
    low, high = FEWEST, MOST_VOTES
    if power(share, high, design) < wanted:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(share, middle, design) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def votes_to_decide(difference: float, bounds: tuple[float, float], votes: int) -> int | None:
    """Return about how many votes in all exclude 0, if the present difference is the true one.

    The interval is taken to shrink with the root of the votes. None beyond `MOST_TIMES` as many.
    """
    half = (bounds[1] - bounds[0]) / 2
    times = max(1.0, half / max(abs(difference), 1e-9)) ** 2
    return None if times > MOST_TIMES else int(np.ceil(votes * times))
