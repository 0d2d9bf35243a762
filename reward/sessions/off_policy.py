"""Rewards that a policy would earn, estimated from sessions of another policy before it goes live.

With rho_t = (probability of the shown slate under the new policy) / (stored probability),
w_t = rho_1 ... rho_t and ~w_t = w_t / sum over sessions of w_t, for sessions i and turns t:

- weighted importance sampling for each decision (Precup et al. 2000):
  sum over t of discount^(t-1) * sum over i of ~w_t r_t
- weighted doubly robust (Jiang and Li 2016, arXiv 1511.03722; weights of Thomas and Brunskill 2016,
  arXiv 1604.00923):
  sum over t of discount^(t-1) * sum over i of (~w_t (r_t - q_t) + ~w_{t-1} v_t)

q_t is a model's value of the shown slate, v_t its mean over the slates of the new policy, and
~w_0 = 1 / (number of sessions). After a session's end r, q and v are 0 and rho is 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reward.calibration import Values
from reward.measuring.bootstrap import interval

RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Logged:
    """Sessions as arrays [sessions, turns]; see the top of the file for their fill."""

    ratios: Values
    """rho"""
    rewards: Values
    """r"""
    slate_values: Values
    """q"""
    state_values: Values
    """v"""


@dataclass(frozen=True)
class Estimate:
    """Reward of a session; None where no session has a slate that the policy would show."""

    value: float | None
    interval: tuple[float, float] | None
    """95 %, from bootstrap samples of sessions."""


@dataclass(frozen=True)
class OffPolicy:
    """Both estimates of one policy."""

    weighted: Estimate
    doubly_robust: Estimate
    sessions: int
    effective_sessions: float
    """Kish's effective number of sessions, (sum of w)^2 / (sum of w^2) at the last turn."""


def estimate(logged: Logged, *, discount: float, rng: np.random.Generator) -> OffPolicy:
    """Return both estimates with intervals over sessions."""
    count = len(logged.rewards)
    samples = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    counts = np.concatenate([np.ones((1, count)), samples])
    weighted, robust = estimates(logged, counts, discount=discount)
    last = logged.ratios.prod(1)
    total = float((last**2).sum())
    return OffPolicy(
        _summed_up(weighted, count),
        _summed_up(robust, count),
        count,
        float(last.sum() ** 2) / total if total else 0.0,
    )


def estimates(logged: Logged, counts: Values, *, discount: float) -> tuple[Values, Values]:
    """Return weighted importance sampling and doubly robust, each [R].

    `counts` [R, sessions] says how often each session is in a sample. An estimate is NaN where all
    weights are 0.
    """
    weights = logged.ratios.cumprod(1)
    discounts = discount ** np.arange(weights.shape[1])
    before = np.concatenate([np.ones((len(weights), 1)), weights[:, :-1]], axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN

        def mean(weights: Values, of: Values) -> Values:
            found: Values = (counts @ (weights * of)) / (counts @ weights)
            return found

        weighted = mean(weights, logged.rewards)
        robust = mean(weights, logged.rewards - logged.slate_values)
        robust = robust + mean(before, logged.state_values)
    return weighted @ discounts, robust @ discounts


def _summed_up(values: Values, sessions: int) -> Estimate:
    value = float(values[0]) if np.isfinite(values[0]) else None
    return Estimate(value, None if value is None else interval(values[1:], sessions))


def table(estimates: Mapping[str, OffPolicy]) -> str:
    """Return the estimates as lines of text, one for each policy."""
    titles = ("policy", "weighted importance sampling", "doubly robust", "effective sessions")
    rows = [titles] + [
        (
            name,
            _in_words(one.weighted),
            _in_words(one.doubly_robust),
            f"{one.effective_sessions:.1f} of {one.sessions}",
        )
        for name, one in estimates.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _in_words(estimate: Estimate) -> str:
    if estimate.value is None:
        return "no session shows its slates"
    if estimate.interval is None:
        return f"{estimate.value:.2f}"
    low, high = estimate.interval
    return f"{estimate.value:.2f} ({low:.2f} to {high:.2f})"
