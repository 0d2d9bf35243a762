"""Votes that a campaign needs, before anyone labels.

Of two models one wins a share p of the votes, of which there are n, spread evenly over R raters and
P prompts. With the standard deviation of a rater's own share about it, and of a prompt's, the
variance of the share found is

    v / n + rater_spread^2 / R + prompt_spread^2 / P,    v = p (1 - p) - ties / 4 - both spreads^2,

and the test is that of `pipelines.arena.intervals`: Student's t with Satterthwaite's degrees of
freedom, whose power the noncentral t gives. However many votes, raters and prompts set a floor.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

MOST_VOTES = 100_000
"""Votes beyond which a plan is none."""
MOST_TIMES = 10
"""Times the present votes beyond which a forecast is none."""


@dataclass(frozen=True)
class Design:
    """Crowd and prompts of a campaign, and how alike their votes are."""

    raters: int
    prompts: int
    rater_spread: float
    prompt_spread: float
    ties: float = 0.0


def power(share: float, votes: int, design: Design) -> float:
    """Return the probability that the 95 % interval excludes a tie if `share` is true."""
    spreads = (design.rater_spread**2, design.prompt_spread**2)
    single = max(share * (1 - share) - design.ties / 4 - sum(spreads), 1e-6) / votes
    raters, prompts = min(design.raters, votes), min(design.prompts, votes)
    parts = ((spreads[0] / raters, raters), (spreads[1] / prompts, prompts))
    variance = single + sum(part for part, _ in parts)
    kurtosis = 1 / (1 - design.ties) - 3
    noise = sum(
        (single + part) ** 2 / (n - 1) + single**2 * kurtosis / (2 * votes) for part, n in parts
    )
    df = variance**2 / max(noise, 1e-12)
    bound, error = student.isf(0.025, df), np.sqrt(variance)
    # the interval is one of log-odds, whose bound in shares is farther from a half
    least = bound * error + 8 / 3 * (bound * error) ** 3
    ends = [bound + (sign * (share - 0.5) - least) / error for sign in (1, -1)]
    return float(sum(nct.sf(bound, df, end) for end in ends))


def votes_needed(share: float, design: Design, wanted: float) -> int | None:
    """Return the fewest votes between two models with this power; None beyond `MOST_VOTES`."""
    low, high = 2, 4
    while power(share, high, design) < wanted:
        low, high = high, 2 * high
        if high > MOST_VOTES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(share, middle, design) >= wanted else (middle, high)
    return high


def votes_to_decide(difference: float, bounds: tuple[float, float], votes: int) -> int | None:
    """Return about how many votes in all exclude 0, if the present difference is the true one.

    The interval is taken to shrink with the root of the votes. None beyond `MOST_TIMES` as many.
    """
    half = (bounds[1] - bounds[0]) / 2
    times = max(1.0, half / max(abs(difference), 1e-9)) ** 2
    return None if times > MOST_TIMES else int(np.ceil(votes * times))
