import numpy as np
import pytest
from scipy.special import expit

from reward.calibration import (
    expected_calibration_error,
    fit_temperature,
    fit_temperature_and_slips,
    with_slips,
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


@pytest.mark.parametrize("slip", [0.0, 0.15])
def test_the_fitted_slip_rate_is_the_one_that_turned_the_labels_round(slip: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=5, size=20_000)
    good = ((rng.random(20_000) < expit(logits / 2)) != (rng.random(20_000) < slip)).astype(float)
    assert fit_temperature_and_slips(logits, good) == pytest.approx((2, slip), rel=0.1, abs=0.01)
    assert fit_temperature_and_slips(logits, np.ones(20_000)) == (1, 0)
    calibrated = with_slips(expit(logits / 2), slip)
    hottest = expit(logits / fit_temperature(logits, good))  # no temperature makes up for slips
    errors = [expected_calibration_error(each, good) for each in (calibrated, hottest)]
    assert errors[0] < 0.015
    assert (errors[1] > 0.025) == bool(slip)
