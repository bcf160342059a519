"""The linear probe against normal equations and fits that leave a group out."""

import numpy as np
import pytest

from tests.metrics.sets import independent, two_levels
from vidlat.metrics.features import Features
from vidlat.metrics.probe import PENALTIES, LinearProbe


def ridge(values, targets, penalty):
    """Weights (D, K) and intercept (K,) by the normal equations."""
    mean, target_mean = values.mean(0), targets.mean(0)
    centred = values - mean
    weights = np.linalg.solve(
        centred.T @ centred + penalty * np.eye(values.shape[1]), centred.T @ (targets - target_mean)
    )
    return weights, target_mean - mean @ weights


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_the_penalty_is_the_best_of_fits_that_leave_a_subject_out(noise):
    rng = np.random.default_rng(0)
    features = two_levels(rng, 7, 4, 12)
    targets = features.values @ rng.normal(size=(12, 2)) + noise * rng.normal(size=(28, 2)) + 4
    unit = np.square(features.values - features.values.mean(0)).sum() / 28
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for group in np.unique(features.groups):
            rows = features.groups == group
            weights, intercept = ridge(features.values[~rows], targets[~rows], unit * penalty)
            error += np.square(features.values[rows] @ weights + intercept - targets[rows]).sum()
        errors.append(error)
    probe = LinearProbe.fit(features, targets)
    assert probe.penalty == PENALTIES[np.argmin(errors)]
    weights, intercept = ridge(features.values, targets, unit * probe.penalty)
    np.testing.assert_allclose(probe(features.values), features.values @ weights + intercept, rtol=1e-8)


def test_a_number_that_features_hold_is_read_and_one_that_they_do_not_is_predicted_by_its_mean():
    rng = np.random.default_rng(1)
    features, new = independent(rng.normal(size=(60, 100))), rng.normal(size=(200, 100))
    direction = rng.normal(size=100) / 10
    read = LinearProbe.fit(
        independent(features.values[:, :20]), features.values[:, :20] @ direction[:20, None]
    )
    np.testing.assert_allclose(read(new[:, :20])[:, 0], new[:, :20] @ direction[:20], atol=0.05)
    unrelated = rng.normal(5, 1, (60, 1))
    guess = LinearProbe.fit(features, unrelated)(new)[:, 0]
    assert np.square(guess - 5).mean() < 0.3


def test_constant_features_predict_the_mean():
    probe = LinearProbe.fit(independent(np.ones((4, 3))), np.arange(4.0)[:, None])
    assert probe(np.ones((2, 3)))[:, 0].tolist() == pytest.approx([1.5, 1.5])


def test_one_group_has_no_probe():
    features = Features(values=np.eye(3), groups=np.array(["a"] * 3))
    assert LinearProbe.fit(features, np.ones((3, 1))) is None
