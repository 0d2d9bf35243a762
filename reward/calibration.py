"""Whether a probability means what it says (Guo et al. 2017, arXiv 1706.04599)."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Values = NDArray[np.float64]

LARGEST_TEMPERATURE = 20.0
"""Fitted temperatures stay between 1 over this and this."""


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


def expected_calibration_error(probabilities: Values, labels: Values, *, bins: int = 15) -> float:
    """Mean gap between the mean probability and the share of good labels in bins of equal width, weighted by their size; in [0, 1]."""
    index = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, weights=probabilities, minlength=bins) - np.bincount(index, weights=labels, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
