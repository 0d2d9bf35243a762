"""Votes that a campaign needs, before anyone labels.

Of two models one wins a share p of the votes, of which there are n, spread evenly over R raters and
P prompts. With the standard deviation of a rater's own share about it, and of a prompt's, the
variance of the share found is

    v / n + rater_spread^2 / R + prompt_spread^2 / P,    v = p (1 - p) - ties / 4 - both spreads^2,

and the test is that of `pipelines.arena.intervals`: Student's t with Satterthwaite's degrees of
freedom, whose power the noncentral t gives. However many votes, raters and prompts set a floor.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, PositiveFloat
from scipy.stats import nct
from scipy.stats import t as student

MOST_VOTES = 100_000
"""Votes beyond which a plan is none."""
MOST_TIMES = 10
"""Times the present votes beyond which a forecast is none."""


Several = Annotated[int, Field(ge=2)]


class ArenaConfig(BaseModel, frozen=True, extra="forbid"):
    """Judgment of models by comparisons: the plan, the stopping rule, and whose labels count."""

    difference: PositiveFloat = 70.0
    """Difference in Elo points that matters; 70 is 60 to 40. A campaign stops soonest on
    differences of about this size."""
    power: float = Field(default=0.8, gt=0.05, lt=1)
    """Probability with which `compare-plan` wants a difference to be found at 95 %."""
    raters: tuple[Several, ...] = Field(default=(5, 10, 20, 40), min_length=1)
    """Numbers of raters that `compare-plan` plans for."""
    prompts: tuple[Several, ...] = Field(default=(25, 50, 100, 200), min_length=1)
    """Numbers of prompts that it plans for."""
    rater_spread: float = Field(default=0.05, ge=0, le=0.4)
    """Standard deviation over raters of the share in which they prefer a model, as raters differ in
    taste."""
    prompt_spread: float = Field(default=0.15, ge=0, le=0.4)
    """The same over prompts: a model is better at some than at others."""
    ties: float = Field(default=0.1, ge=0, lt=1)
    """Share of votes that are ties."""
    omit_raters: bool = False
    """Whether raters who answer by chance are left out of `compare-report`. It names them in any
    case."""


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
