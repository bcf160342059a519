"""Precision, recall, density, coverage and diversity against loops and known arrangements."""

import numpy as np
import pytest

from tests.metrics.sets import independent, two_levels
from vidlat.metrics.diversity import DiversityRatio
from vidlat.metrics.features import Features, unit_weights
from vidlat.metrics.neighbourhoods import neighbourhoods


def radius(features, item, k=5):
    return sorted(
        np.linalg.norm(features.values[item] - other)
        for other, group in zip(features.values, features.groups, strict=True)
        if group != features.groups[item]
    )[k - 1]


def test_figures_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    real, samples = two_levels(rng, 8, 3, 2), independent(rng.normal(0.7, 1, (20, 2)), "sample")
    real_radii, sample_radii = ([radius(each, item) for item in range(len(each))] for each in (real, samples))
    distance = [[np.linalg.norm(x - y) for y in samples.values] for x in real.values]
    in_real = [[distance[i][j] <= real_radii[i] for j in range(20)] for i in range(24)]
    in_sample = [[distance[i][j] <= sample_radii[j] for j in range(20)] for i in range(24)]
    found = neighbourhoods(real, samples)
    assert found.precision == pytest.approx(np.mean([any(row[j] for row in in_real) for j in range(20)]))
    assert found.recall == pytest.approx(np.mean([any(row) for row in in_sample]))
    assert found.density == pytest.approx(np.sum(in_real) / 5 / 20)
    assert found.coverage == pytest.approx(np.mean([any(row) for row in in_real]))
    assert 0 < found.coverage < 1


def test_samples_of_one_mode_are_precise_and_cover_half():
    rng = np.random.default_rng(1)
    modes = rng.normal(0, 0.1, (40, 3)) + np.repeat([[0, 0, 0], [9, 0, 0]], 20, axis=0)
    found = neighbourhoods(independent(modes), independent(rng.normal(0, 0.05, (30, 3)), "sample"))
    assert found.precision == 1
    assert found.recall <= 0.5
    assert 0.4 < found.coverage <= 0.5


@pytest.mark.parametrize("num_groups", [1, 5])
def test_items_without_five_neighbours_of_other_groups_have_no_figures(num_groups):
    few = two_levels(np.random.default_rng(2), num_groups, 1 if num_groups > 1 else 9, 2)
    many = independent(np.random.default_rng(3).normal(size=(9, 2)))
    assert neighbourhoods(few, many) is None
    assert neighbourhoods(many, few) is None
    assert neighbourhoods(many, many) is not None


def test_diversity_is_the_mean_distance_of_different_groups_over_that_of_the_other_set():
    rng = np.random.default_rng(4)
    one, other = two_levels(rng, 4, 2, 3), independent(2 * rng.normal(size=(6, 3)), "other")

    def mean_distance(features):
        return np.mean([
            np.linalg.norm(x - y)
            for x, group in zip(features.values, features.groups, strict=True)
            for y, other_group in zip(features.values, features.groups, strict=True)
            if group != other_group
        ])  # fmt: skip

    found = DiversityRatio(one, other)(unit_weights(one), unit_weights(other))[0]
    assert found == pytest.approx(mean_distance(one) / mean_distance(other))


def test_one_group_has_no_diversity():
    one, other = Features(values=np.eye(3), groups=np.array(["a"] * 3)), independent(np.eye(3))
    assert np.isnan(DiversityRatio(one, other)(unit_weights(one), unit_weights(other))[0])
