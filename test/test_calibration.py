"""Calibration of confidence, against SciPy and against cases worked out by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import spearmanr

from hand_mesh_ros.evaluation.calibration import (
    CONFIDENT_ERROR_M,
    calibrated_confidence,
    fit_calibration,
    reliability,
    spearman,
)
from hand_mesh_ros.evaluation.reliability_plot import reliability_picture

RNG = np.random.default_rng(0)


def joints(count=4000):
    """Log-variances, and errors of which they tell something."""
    log_variance = RNG.normal(0.5, 1.2, (count, 21))
    return log_variance, np.exp(0.5 * log_variance) * np.abs(RNG.normal(0.0, 0.01, (count, 21)))


def test_the_fit_is_the_likeliest():
    log_variance, errors = joints(400)
    right = errors.ravel() < CONFIDENT_ERROR_M

    def cost(parameters):
        logits = parameters[0] - parameters[1] * log_variance.ravel()
        return np.logaddexp(0.0, logits).sum() - logits[right].sum()

    reference = minimize(cost, [0.0, 1.0], method='BFGS', options={'gtol': 1e-6}).x
    np.testing.assert_allclose(fit_calibration(log_variance, errors), reference, rtol=1e-3)


@pytest.mark.parametrize(('scale', 'shift'), [(1e-3, 0.0), (1.0, 500.0), (300.0, -1e4)])
def test_the_fit_does_not_depend_on_the_size_of_log_variances(scale, shift):
    log_variance, errors = joints(200)
    plain = calibrated_confidence(log_variance, *fit_calibration(log_variance, errors))
    other = scale * log_variance + shift
    np.testing.assert_allclose(
        calibrated_confidence(other, *fit_calibration(other, errors)), plain, atol=1e-6
    )


def test_log_variances_that_part_right_from_wrong_still_have_a_fit():
    errors = np.array([0.001, 0.002, 0.02, 0.03])
    offset, slope = fit_calibration(np.array([-1.0, -0.5, 1.0, 2.0]), errors)
    confidence = calibrated_confidence(np.array([-1.0, -0.5, 1.0, 2.0]), offset, slope)
    assert np.isfinite([offset, slope]).all() and ((confidence > 0.5) == (errors < 0.01)).all()


def test_joints_that_are_not_known_do_not_count():
    log_variance, errors = joints(50)
    expected = fit_calibration(log_variance[1:], errors[1:])
    log_variance[0, :10], errors[0, 10:] = np.nan, np.nan
    np.testing.assert_allclose(fit_calibration(log_variance, errors), expected)


def test_nothing_can_be_fitted_to_joints_that_are_all_right():
    with pytest.raises(ValueError, match='below and above'):
        fit_calibration(np.arange(5.0), np.zeros(5))


def test_a_fit_to_half_of_the_joints_is_calibrated_on_the_other():
    log_variance, errors = joints()
    half = len(errors) // 2
    offset, slope = fit_calibration(log_variance[:half], errors[:half])
    known = calibrated_confidence(log_variance[half:], offset, slope)
    assert reliability(known, errors[half:]).expected_error < 0.03
    assert reliability(known**3, errors[half:]).expected_error > 0.1


def test_the_expected_error_of_a_case_worked_out_by_hand():
    confidence = np.array([0.05, 0.91, 0.93, 0.95, 1.0])
    errors = np.array([0.005, 0.005, 0.02, 0.005, 0.005])
    found = reliability(confidence, errors)
    assert found.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 4]
    # One joint at 0.05 that is right; four at 0.9475 of which three are
    assert found.expected_error == pytest.approx((0.95 + 4 * (0.9475 - 0.75)) / 5)


def test_confidence_of_extreme_log_variances_is_finite():
    np.testing.assert_array_equal(calibrated_confidence(np.array([1e6, -1e6]), 0.0, 1.0), [0.0, 1.0])


def test_rank_correlation_is_scipys():
    first, second = RNG.normal(size=300), RNG.integers(0, 5, 300).astype(float)  # many are equal
    np.testing.assert_allclose(spearman(first, second), spearmanr(first, second).statistic)
    second[3] = np.nan
    expected = spearmanr(np.delete(first, 3), np.delete(second, 3)).statistic
    np.testing.assert_allclose(spearman(first, second), expected)
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_the_picture_shows_how_high_each_bin_is():
    confidence = np.full(100, 0.95)
    errors = np.where(np.arange(100) < 50, 0.0, 1.0)
    half = reliability_picture(reliability(confidence, errors), 'fit')
    full = reliability_picture(reliability(confidence, np.zeros(100)), 'fit')

    def inked(picture):
        return int((picture == (84, 150, 235)).all(2).sum())

    assert half.dtype == np.uint8 and 0.4 < inked(half) / inked(full) < 0.6
    assert reliability_picture(reliability(confidence[:0], errors[:0]), 'none').shape == full.shape
