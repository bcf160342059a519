"""The kernel distance against a double loop and the moments of Gaussians."""

from itertools import product

import numpy as np
import pytest

from tests.metrics.sets import independent, two_levels
from vidlat.metrics.features import Features, unit_weights
from vidlat.metrics.kernel_distance import KernelDistance, KernelExcess


def distance_of(one, other):
    return KernelDistance(one, other)(unit_weights(one), unit_weights(other))[0]


def by_a_loop(one, other, weights_one, weights_other):
    def mean(first, second, first_weights, second_weights):
        total = number = 0.0
        for i, j in product(range(len(first)), range(len(second))):
            if first.groups[i] != second.groups[j]:
                weight = first_weights[i] * second_weights[j]
                total += weight * (first.values[i] @ second.values[j] / first.values.shape[1] + 1) ** 3
                number += weight
        return total / number

    within = mean(one, one, weights_one, weights_one) + mean(other, other, weights_other, weights_other)
    return within - 2 * mean(one, other, weights_one, weights_other)


def test_distance_is_that_of_a_double_loop_over_pairs_of_different_groups():
    rng = np.random.default_rng(0)
    one, other = two_levels(rng, 4, 3, 5), two_levels(rng, 3, 4, 5, name="other")
    other = Features(values=other.values, groups=np.where(other.groups == "other0", "subject1", other.groups))
    weights = [rng.integers(0, 4, (6, len(each))).astype(float) for each in (one, other)]
    expected = [by_a_loop(one, other, *rows) for rows in zip(*weights, strict=True)]
    np.testing.assert_allclose(KernelDistance(one, other)(*weights), expected, rtol=1e-10)


def test_the_excess_is_the_difference_of_two_distances():
    rng = np.random.default_rng(3)
    one, other, reference = (two_levels(rng, 3, 2, 4, name=name) for name in "abc")
    weights = [rng.integers(1, 3, (2, 6)).astype(float) for _ in range(3)]
    first, second = (
        KernelDistance(each, reference)(weight, weights[2])
        for each, weight in ((one, weights[0]), (other, weights[1]))
    )
    np.testing.assert_allclose(KernelExcess(one, other, reference)(*weights), first - second)


def expected_kernel(mean, other_mean):
    """E (x y + 1)^3 of independent normal x and y of unit variance."""
    moments = [(m, m**2 + 1, m**3 + 3 * m) for m in (mean, other_mean)]
    (first, second, third), (other_first, other_second, other_third) = moments
    return third * other_third + 3 * second * other_second + 3 * first * other_first + 1


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_distance_of_few_items_is_without_bias_that_of_the_moments(shift):
    rng, distances = np.random.default_rng(1), []
    for _ in range(600):
        one, other = (
            independent(rng.normal(0, 1, (12, 1))),
            independent(rng.normal(shift, 1, (12, 1)), "other"),
        )
        distances.append(distance_of(one, other))
    expected = expected_kernel(0, 0) + expected_kernel(shift, shift) - 2 * expected_kernel(0, shift)
    assert abs(np.mean(distances) - expected) < 3 * np.std(distances) / np.sqrt(len(distances))


def test_clips_of_one_subject_give_no_bias_where_their_pairs_are_left_out():
    """The mean over 400 draws of few subjects is 0 within its error; that of the plain U-statistic is not."""
    rng, distances = np.random.default_rng(2), []
    for _ in range(400):
        clips, samples = two_levels(rng, 6, 8, 10), independent(rng.normal(size=(30, 10)), "sample")
        plain = independent(clips.values)
        distances.append((distance_of(clips, samples), distance_of(plain, samples)))
    means, errors = np.mean(distances, 0), np.std(distances, 0) / np.sqrt(len(distances))
    assert abs(means[0]) < 3 * errors[0]
    assert means[1] > 10 * errors[1]


def test_a_set_of_one_group_has_no_distance():
    alone = Features(values=np.ones((3, 2)), groups=np.array(["a"] * 3))
    assert np.isnan(distance_of(alone, independent(np.eye(4)[:, :2])))
