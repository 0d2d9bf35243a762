"""Calibration of probabilities (Guo et al. 2017, arXiv 1706.04599).

With a temperature T the probability is sigmoid(logit / T).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Values = NDArray[np.float64]

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.5, 20.0
"""Bounds of fitted temperatures. Few labels that are told apart without a fault would ask for an
ever lower one, at which the sigmoid's gradient is 0 in float32."""


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

    bounds = np.log([LEAST_TEMPERATURE, LARGEST_TEMPERATURE])
    found = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def expected_calibration_error(probabilities: Values, labels: Values, *, bins: int = 15) -> float:
    """Return the mean over bins of |mean probability - share of good labels|, in [0, 1].

    Bins have equal width and are weighted by their number of labels.
    """
    index = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    predicted, observed = (
        np.bincount(index, weights=each, minlength=bins) for each in (probabilities, labels)
    )
    return float(np.abs(predicted - observed).sum() / len(labels))
