import numpy as np
import pytest
from scipy.special import expit

from reward.calibration import (
    expected_calibration_error,
    fit_temperature,
)


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    probabilities = np.repeat([0.1, 0.3, 0.8], 10)
    good = np.concatenate([np.arange(10) < k for k in (1, 3, 8)]).astype(float)
    assert expected_calibration_error(probabilities, good) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(np.ones(4), np.zeros(4)) == 1


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_the_one_that_made_the_labels(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=20_000)
    good = (rng.random(20_000) < expit(logits / true)).astype(float)
    assert fit_temperature(logits, good) == pytest.approx(true, rel=0.1)
    assert fit_temperature(logits, np.ones(20_000)) == 1
