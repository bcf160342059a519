"""The Fréchet distance: SciPy's matrix square root and the closed form of a shift are the oracles."""

import numpy as np
import pytest
import scipy.linalg

from tests.metrics.sets import independent
from vidlat.metrics.features import unit_weights
from vidlat.metrics.frechet import FrechetDistance, PrincipalComponents


def distance_of(one, other):
    one, other = independent(one), independent(other)
    return FrechetDistance(one, other)(unit_weights(one), unit_weights(other))[0]


def by_scipy(one, other):
    covariances = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return np.square(one.mean(0) - other.mean(0)).sum() + np.trace(sum(covariances) - 2 * root)


def test_distance_is_that_of_the_formula_with_scipys_square_root():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(60, 5)), rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + 1
    assert distance_of(one, other) == pytest.approx(by_scipy(one, other), rel=1e-9)


def test_weights_count_items():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(20, 3)), rng.normal(size=(30, 3)) + 100
    weights = [rng.integers(0, 3, (4, len(each))) for each in (one, other)]
    expected = [
        by_scipy(one.repeat(first, 0), other.repeat(second, 0))
        for first, second in zip(*weights, strict=True)
    ]
    distances = FrechetDistance(independent(one), independent(other))(*map(np.float64, weights))
    np.testing.assert_allclose(distances, expected, rtol=1e-9)


def test_distance_of_a_set_to_itself_is_zero_and_to_a_shifted_one_the_shift_squared():
    features = np.random.default_rng(2).normal(size=(300, 32))
    assert distance_of(features, features) == pytest.approx(0, abs=1e-8)
    assert distance_of(features, features + 0.5) == pytest.approx(32 * 0.25)


def test_components_are_the_leading_eigenvectors_of_the_covariance():
    values = np.random.default_rng(3).normal(size=(50, 6)) * [5, 4, 3, 2, 1, 0.1] + 7
    components = PrincipalComponents.fit(values, 13)
    eigenvalues = np.linalg.eigvalsh(np.cov(values.T))[::-1]
    np.testing.assert_allclose(np.cov(components(values).T), np.diag(eigenvalues[:3]), atol=1e-9)


@pytest.mark.parametrize(
    ("num_rows", "dimensions", "num_items", "expected"),
    [(200, 60, 1000, 32), (200, 60, 64, 15), (200, 60, 5, 1), (200, 8, 1000, 8), (4, 60, 1000, 3)],
)
def test_dimensions_are_fewer_than_a_quarter_of_the_items(num_rows, dimensions, num_items, expected):
    values = np.random.default_rng(4).normal(size=(num_rows, dimensions))
    assert PrincipalComponents.fit(values, num_items).directions.shape == (dimensions, expected)


@pytest.mark.parametrize("num_items", [0, 1, 4])
def test_few_items_have_no_dimension(num_items):
    assert PrincipalComponents.fit(np.eye(9), num_items) is None


def test_a_single_item_has_no_distance():
    assert np.isnan(distance_of(np.ones((1, 2)), np.ones((3, 2))))
