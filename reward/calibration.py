"""Whether a probability means what it says (Guo et al. 2017, arXiv 1706.04599).

A temperature T makes it sigmoid(logit / T). Raters who now and then slip call no picture good for sure, nor bad: with a slip rate s, the
lapse rate of psychometric functions (Wichmann and Hill 2001), it is s + (1 - 2 s) sigmoid(logit / T).
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, xlog1py, xlogy
from torch import Tensor

Values = NDArray[np.float64]

V = TypeVar("V", Values, Tensor)

LARGEST_TEMPERATURE = 20.0
"""Fitted temperatures stay between 1 over this and this."""
MOST_SLIPS = 0.45
"""Fitted slip rates stay at or below this; at 0.5 answers would say nothing."""


def fit_temperature(logits: Values, labels: Values) -> float:
    """The temperature at which sigmoid(logits / temperature) has the lowest negative log-likelihood of `labels`; both [V], labels 0 or 1.

    With labels of one class only there is nothing to fit, and it is 1.
    """
    if len(np.unique(labels)) < 2:
        return 1.0

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))

    limit = np.log(LARGEST_TEMPERATURE)
    found = minimize_scalar(negative_log_likelihood, bounds=(-limit, limit), method="bounded")
    return float(np.exp(found.x))


def fit_temperature_and_slips(logits: Values, labels: Values) -> tuple[float, float]:
    """The temperature and the slip rate, below 0.5, with the lowest negative log-likelihood of `labels`; arguments as `fit_temperature`.

    With labels of one class only they are 1 and 0.
    """
    if len(np.unique(labels)) < 2:
        return 1.0, 0.0

    def negative_log_likelihood(found: Values) -> float:
        probability = np.clip(
            with_slips(expit(logits / np.exp(found[0])), found[1]), 1e-9, 1 - 1e-9
        )
        return -float(np.mean(xlogy(labels, probability) + xlog1py(1 - labels, -probability)))

    limit = np.log(LARGEST_TEMPERATURE)
    start = np.array([np.log(fit_temperature(logits, labels)), 0.05])
    found = minimize(
        negative_log_likelihood, start, method="L-BFGS-B", bounds=[(-limit, limit), (0, MOST_SLIPS)]
    )
    return float(np.exp(found.x[0])), float(found.x[1])


def with_slips(probabilities: V, slip: float | V) -> V:
    """What raters say whose answer is turned round with probability `slip`."""
    return slip + (1 - 2 * slip) * probabilities


def expected_calibration_error(probabilities: Values, labels: Values, *, bins: int = 15) -> float:
    """Mean gap between the mean probability and the share of good labels in bins of equal width, weighted by their size; in [0, 1]."""
    index = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, weights=probabilities, minlength=bins) - np.bincount(
        index, weights=labels, minlength=bins
    )
    return float(np.abs(gaps).sum() / len(labels))
