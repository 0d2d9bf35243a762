"""Votes that a campaign needs, before anyone labels.

Of two models one wins a share p of the votes, of which there are n, spread evenly over R raters and
P prompts. With the standard deviation of a rater's own share about it, and of a prompt's, the
variance of the share found is

    v / n * (1 + (n / R - 1) rater_spread^2 / v + (n / P - 1) prompt_spread^2 / v),
    v = p (1 - p) - ties / 4,

and the test is that of `intervals.py`: the found share is compared with a half by the variances
over raters and over prompts that are found, which are gamma distributed, and by Student's t with
the degrees of freedom that follow from these. For fewer than `FEW_VOTES`, where shares and
variances take few values, campaigns are drawn and given that very interval. However many votes,
raters and prompts set a floor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.special import gammaincinv, ndtri, stdtrit

from pipelines.compare.arena.intervals import LEAST, clustered, log_odds, noise_of
from pipelines.compare.arena.votes import Values

FEW_VOTES = 60
"""Votes below which the power is that of drawn campaigns."""
CAMPAIGNS = 2000
"""Campaigns that are drawn."""
STEPS = 4
"""Numbers of votes in a row with the power wanted: with few votes it rises in steps."""
NORMAL = ndtri((np.arange(400) + 0.5) / 400)
"""Quantiles of the normal distribution."""
MIDDLES = (np.arange(10) + 0.5) / 10
"""Probabilities of the quantiles of variances."""
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
    raters, prompts = (min(n, votes) for n in (design.raters, design.prompts))
    asked = replace(design, raters=raters, prompts=prompts)
    return (_drawn if votes < FEW_VOTES else _expected)(share, votes, asked)


@cache
def _drawn(share: float, votes: int, design: Design) -> float:
    """Return the share of drawn campaigns whose interval excludes a tie."""
    rng = np.random.default_rng(0)
    p = np.full((votes, CAMPAIGNS), share)
    clusters = []
    for n, spread in ((design.raters, design.rater_spread), (design.prompts, design.prompt_spread)):
        clusters.append(rng.permutation(np.resize(np.arange(n), votes)))
        p += rng.normal(0, spread, (n, CAMPAIGNS))[clusters[-1]]
    wins = np.clip(p - design.ties / 2, 0, 1 - design.ties)
    drawn = rng.random(p.shape)
    won = np.where(drawn < wins, 1.0, np.where(drawn < wins + design.ties, 0.5, 0.0))
    sums = np.concatenate([won, 1 - won], axis=1)
    independent = (1 / (won.sum(0) + 0.5)) + 1 / ((1 - won).sum(0) + 0.5)
    bounds = clustered(sums, clusters[0], clusters[1], log_odds, independent).shares()
    return float(((bounds[:, 0] > 0.5) | (bounds[:, 1] < 0.5)).mean())


@cache
def _expected(share: float, votes: int, design: Design) -> float:
    """Return the probability by the distribution of the share and of its variance."""
    spreads = np.array([design.rater_spread, design.prompt_spread])
    clusters = (design.raters, design.prompts)
    if spreads.any():  # no rater and no prompt has a share below 0 or above 1
        spread = np.hypot(*spreads)
        shares = np.clip(share + spread * NORMAL, design.ties / 2, 1 - design.ties / 2)
        share, spreads = float(shares.mean()), spreads * shares.std() / spread
    single = max(share * (1 - share) - design.ties / 4, 1e-6)
    pairs = zip(spreads, clusters, strict=True)
    ratios = [1 + spread**2 / single * (votes / n - 1) for spread, n in pairs]
    found, chances = _found_shares(
        share, np.sqrt(single * (sum(ratios) - 1) / votes), votes, design
    )
    smoothed = (found * votes + 0.5) / (votes + 1)
    independent = smoothed * (1 - smoothed)
    error = np.maximum(independent - design.ties / 4, LEAST * independent) / (votes + 1)
    needed = (smoothed - 0.5) ** 2 * 4 * independent / error
    squares = _bounds(ratios, clusters, votes)
    return float(chances @ np.searchsorted(squares, needed)) / len(squares)


def _found_shares(share: float, error: float, votes: int, design: Design) -> tuple[Values, Values]:
    """Return shares of votes that may be found, and their probabilities."""
    if votes >= len(NORMAL):
        return np.clip(share + error * NORMAL, 0, 1), np.full(len(NORMAL), 1 / len(NORMAL))
    steps = votes * (2 if design.ties else 1)
    found = np.arange(steps + 1) / steps
    density = np.exp(-(((found - share) / error) ** 2) / 2)
    return found, density / density.sum()


def _bounds(ratios: Sequence[float], clusters: Sequence[int], votes: int) -> Values:
    """Return equally likely squares of the t at which the test rejects, in order.

    Each is multiplied by the variance that is found, in units of that of independent votes.
    """
    found = []
    for ratio, n in zip(ratios, clusters, strict=True):
        half_df = ratio**2 / max(float(noise_of(np.array(ratio), n, votes)), 1e-9) / 2
        found.append(ratio * gammaincinv(half_df, MIDDLES) / half_df)
    raters, prompts = (one.ravel() for one in np.meshgrid(*found))
    both = raters + prompts - 1
    noise = sum(
        noise_of(np.maximum(one, 1), n, votes)
        for one, n in zip((raters, prompts), clusters, strict=True)
    )
    df = np.maximum(np.maximum(both, 1) ** 2 / np.maximum(noise, 1e-9), 1)
    return np.sort(stdtrit(df, 0.975) ** 2 * np.maximum(both, LEAST))


def votes_needed(share: float, design: Design, wanted: float) -> int | None:
    """Return the votes between two models from which on it has this power.

    None beyond `MOST_VOTES`.
    """
    low, high = 1, FEW_VOTES
    while power(share, high, design) < wanted:
        low, high = high, 2 * high
        if high > MOST_VOTES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(share, middle, design) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    while few := [n for n in range(high, high + STEPS) if power(share, n, design) < wanted]:
        high = few[-1] + 1
    return high


def votes_to_decide(difference: float, bounds: tuple[float, float], votes: int) -> int | None:
    """Return about how many votes in all exclude 0, if the present difference is the true one.

    The interval is taken to shrink with the root of the votes. None beyond `MOST_TIMES` as many.
    """
    half = (bounds[1] - bounds[0]) / 2
    times = max(1.0, half / max(abs(difference), 1e-9)) ** 2
    return None if times > MOST_TIMES else int(np.ceil(votes * times))
