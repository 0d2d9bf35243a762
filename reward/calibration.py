"""Calibration of probabilities (Guo et al. 2017, arXiv 1706.04599).

With a temperature T the probability is sigmoid(logit / T). Raters sometimes give the wrong answer
by accident, at the slip rate s (the lapse rate of psychometric functions, Wichmann and Hill 2001).
Then the probability is s + (1 - 2 s) sigmoid(logit / T).
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
"""Upper bound of fitted temperatures; the lower bound is its inverse."""
MOST_SLIPS = 0.45
"""Upper bound of fitted slip rates; at 0.5 answers carry no information."""


def fit_temperature(logits: Values, labels: Values) -> float:
    """Return the temperature with the lowest negative log-likelihood of `labels`.

    Both arguments are [V], labels 0 or 1; the probabilities are sigmoid(logits / temperature). With
    labels of one class alone, the temperature is 1.
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
    """Return the temperature and the slip rate with the lowest negative log-likelihood of `labels`.

    Arguments as for `fit_temperature`. The rate is below 0.5. With labels of one class alone, the
    result is (1, 0).
    """
    if len(np.unique(labels)) < 2:
        return 1.0, 0.0

    def negative_log_likelihood(found: Values) -> float:
        probability = with_slips(expit(logits / np.exp(found[0])), found[1])
        probability = np.clip(probability, 1e-9, 1 - 1e-9)
        return -float(np.mean(xlogy(labels, probability) + xlog1py(1 - labels, -probability)))

    limit = np.log(LARGEST_TEMPERATURE)
    start = np.array([np.log(fit_temperature(logits, labels)), 0.05])
    bounds = [(-limit, limit), (0, MOST_SLIPS)]
    found = minimize(negative_log_likelihood, start, method="L-BFGS-B", bounds=bounds)
    return float(np.exp(found.x[0])), float(found.x[1])


def with_slips(probabilities: V, slip: float | V) -> V:
    """Return the probabilities of answers that are reversed with probability `slip`."""
    return slip + (1 - 2 * slip) * probabilities


def expected_calibration_error(probabilities: Values, labels: Values, *, bins: int = 15) -> float:
    """Return the mean over bins of |mean probability - share of good labels|, in [0, 1].

    Bins have equal width and are weighted by their number of labels.
    """
    index = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    predicted, observed = (
        np.bincount(index, weights=each, minlength=bins) for each in (probabilities, labels)
    )
    return float(np.abs(predicted - observed).sum() / len(labels))
