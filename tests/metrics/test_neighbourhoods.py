"""Precision, recall, density, coverage and diversity against loops and known arrangements."""

import numpy as np
import pytest

from tests.metrics.sets import independent, two_levels
from vidlat.metrics import intervals
from vidlat.metrics.diversity import DiversityRatio
from vidlat.metrics.features import Features, unit_weights
from vidlat.metrics.intervals import resampled_weights
from vidlat.metrics.neighbourhoods import _Balls, neighbourhoods


def figures_of_a_loop(real, samples, weights, of_samples):
    """Of sets in which every item is there as often as its weight says."""

    def radii(features, weights):
        for item in range(len(features)):
            others = [
                distance
                for other, weight in enumerate(weights)
                for distance in [np.linalg.norm(features.values[item] - features.values[other])] * int(weight)
                if features.groups[other] != features.groups[item]
            ]
            yield sorted(others)[4]

    real_radii, sample_radii = list(radii(real, weights)), list(radii(samples, of_samples))
    distance = [[np.linalg.norm(x - y) for y in samples.values] for x in real.values]
    is_real, is_sample = np.repeat(range(len(real)), weights), np.repeat(range(len(samples)), of_samples)
    in_real = np.array([[distance[i][j] <= real_radii[i] for j in is_sample] for i in is_real])
    in_sample = np.array([[distance[i][j] <= sample_radii[j] for j in is_sample] for i in is_real])
    return [in_real.any(0).mean(), in_sample.any(1).mean(), in_real.mean(1).sum() / 5, in_real.any(1).mean()]


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return two_levels(rng, 8, 3, 2), independent(rng.normal(0.7, 1, (20, 2)), "sample")


def test_figures_are_those_of_a_loop(sets):
    found = neighbourhoods(*sets)
    expected = figures_of_a_loop(*sets, np.ones(24, int), np.ones(20, int))
    each = (found.precision, found.recall, found.density, found.coverage)
    assert [one.value for one in each] == pytest.approx(expected)
    assert 0 < found.coverage.value < 1
    for one in each:
        assert 0 <= one.low <= one.value <= one.high
    assert max(found.precision.high, found.recall.high, found.coverage.high) <= 1


def test_figures_of_a_draw_are_those_of_sets_that_hold_what_is_drawn(sets):
    rng = np.random.default_rng(1)
    weights = np.array([resampled_weights(sets[0].groups, rng)[0] for _ in range(6)])
    of_samples = np.array([resampled_weights(sets[1].groups, rng)[0] for _ in range(6)])
    expected = [
        figures_of_a_loop(*sets, *(each.astype(int) for each in pair))
        for pair in zip(weights, of_samples, strict=True)
    ]
    np.testing.assert_allclose(_Balls(*sets)(weights, of_samples), expected)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_intervals_hold_the_mean_of_many_draws(monkeypatch, shift):
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 200)

    def draw(seed):
        rng = np.random.default_rng(seed)
        return two_levels(rng, 15, 4, 10), independent(rng.normal(shift, 1, (60, 10)), "sample")

    ones = np.ones((1, 60))
    truth = np.mean([_Balls(*draw(10_000 + number))(ones, ones)[0] for number in range(1000)], axis=0)
    held = np.zeros(4)
    for seed in range(100):
        found = neighbourhoods(*draw(seed))
        each = (found.precision, found.recall, found.density, found.coverage)
        held += [one.holds(true) for one, true in zip(each, truth, strict=True)]
    assert (held >= 80).all()


def test_samples_of_one_mode_are_precise_and_cover_half():
    rng = np.random.default_rng(1)
    modes = rng.normal(0, 0.1, (40, 3)) + np.repeat([[0, 0, 0], [9, 0, 0]], 20, axis=0)
    found = neighbourhoods(independent(modes), independent(rng.normal(0, 0.05, (30, 3)), "sample"))
    assert found.precision.value == 1
    assert found.recall.value <= 0.5
    assert 0.4 < found.coverage.value <= 0.5


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
