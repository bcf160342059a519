"""Units of features."""

import numpy as np

from vidlat.metrics.standardisation import LEAST, Standardisation


def test_features_have_mean_zero_and_spread_one():
    values = np.random.default_rng(0).normal(3, [1, 2, 5], (50, 3))
    standardised = Standardisation.fit(values)(values)
    np.testing.assert_allclose(standardised.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(standardised.std(0), 1)


def test_features_that_hardly_vary_are_measured_in_a_share_of_the_usual_spread():
    values = np.random.default_rng(1).normal(0, [1, 1, 1, 1e-6], (500, 4))
    scale = Standardisation.fit(values)
    assert scale.unit[3] == LEAST * np.sqrt(np.square(values.std(0)).mean())
    assert abs(scale(values)[:, 3]).max() < 1e-3


def test_constant_features_are_zero():
    assert (Standardisation.fit(np.full((4, 2), 7.0))(np.full((4, 2), 7.0)) == 0).all()
