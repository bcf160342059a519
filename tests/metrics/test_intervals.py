"""Bootstrap intervals hold what is true as often as they say."""

import numpy as np
import pytest

from tests.metrics.sets import independent, two_levels
from vidlat.metrics import intervals
from vidlat.metrics.features import Features
from vidlat.metrics.frechet import FrechetDistance
from vidlat.metrics.intervals import Estimate, estimate, ratio_of_means, resampled_weights
from vidlat.metrics.kernel_distance import KernelDistance, KernelExcess

DIMENSIONS = 50


def true_kernel_distance(shift, rng):
    """Of standard normal vectors and those moved by `shift`: x . y is normal once y is known."""

    def kernel(mean, other_mean):
        y = rng.normal(other_mean, 1, (20_000, DIMENSIONS))
        average, variance = mean * y.mean(1), np.square(y).sum(1) / DIMENSIONS**2
        return ((1 + average) ** 3 + 3 * (1 + average) * variance).mean()

    return kernel(0, 0) + kernel(shift, shift) - 2 * kernel(0, shift)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_intervals_of_the_kernel_distance_hold_the_true_one(monkeypatch, shift):
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 200)
    truth = true_kernel_distance(shift, np.random.default_rng(0)) if shift else 0.0
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        clips = two_levels(rng, 12, 3, DIMENSIONS)
        samples = independent(rng.normal(shift, 1, (30, DIMENSIONS)), "sample")
        held += estimate(KernelDistance(clips, samples), clips, samples).holds(truth)
    assert held >= 180


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_intervals_of_the_excess_over_real_clips_hold_the_true_one(monkeypatch, shift):
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 100)
    truth = true_kernel_distance(shift, np.random.default_rng(0)) if shift else 0.0
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        clips, training = (two_levels(rng, 12, 3, DIMENSIONS, name=name) for name in "ab")
        samples = independent(rng.normal(shift, 1, (30, DIMENSIONS)), "sample")
        sets = samples, training, clips
        held += estimate(KernelExcess(*sets), *sets).holds(truth)
    assert held >= 180


def test_intervals_of_the_frechet_distance_hold_the_true_one(monkeypatch):
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 100)
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        one, other = independent(rng.normal(size=(100, 2))), independent(rng.normal(1, 1, (100, 2)), "other")
        held += estimate(FrechetDistance(one, other), one, other, is_positive=True).holds(2.0)
    assert held >= 180


@pytest.mark.slow
def test_intervals_of_a_ratio_hold_the_true_one_where_subjects_are_drawn_and_not_clips(monkeypatch):
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 200)
    held, held_by_clips = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        one, other = (two_levels(rng, 20, 8, 1, within=0.1, name=name) for name in "ab")
        ratio = ratio_of_means(one.values[:, 0] + 5, other.values[:, 0] + 5)
        held += estimate(ratio, one, other, is_positive=True).holds(1.0)
        clips = [independent(each.values, name) for each, name in ((one, "a"), (other, "b"))]
        held_by_clips += estimate(ratio, *clips, is_positive=True).holds(1.0)
    assert held >= 180
    assert held_by_clips < 120


def test_groups_are_drawn_whole_and_as_many_as_there_are():
    groups = np.array(["a", "a", "b", "c", "c", "c"])
    weights = resampled_weights(groups, np.random.default_rng(0))
    firsts = weights[:, [0, 2, 3]]
    np.testing.assert_array_equal(weights, firsts[:, [0, 0, 1, 2, 2, 2]])
    np.testing.assert_array_equal(firsts.sum(1), 3)
    assert firsts.mean(0) == pytest.approx(1, abs=0.1)


def test_what_cannot_be_told_is_none():
    one, other = independent(np.ones((3, 1))), Features(values=np.ones((2, 1)), groups=np.array(["x", "x"]))
    assert estimate(KernelDistance(one, other), one, other) == Estimate(value=None)
    assert estimate(ratio_of_means(np.ones(3), np.full(2, 4.0)), one, other) == Estimate(value=0.25)
    assert estimate(ratio_of_means(np.ones(3), np.zeros(2)), one, other) == Estimate(value=None)
    assert not Estimate(value=1.0).holds(1.0)


def test_an_interval_of_what_is_never_below_zero_is_above_it():
    rng = np.random.default_rng(0)
    one, other = independent(np.zeros((4, 1))), independent(np.zeros((3, 1)), "other")
    ratio = ratio_of_means(rng.exponential(size=4) ** 3, rng.exponential(size=3) ** 3)
    assert 0 < estimate(ratio, one, other, is_positive=True).low < estimate(ratio, one, other).value
    assert estimate(ratio, one, other).low < 0
    nothing = ratio_of_means(np.zeros(4), np.ones(3))
    assert estimate(nothing, one, other, is_positive=True) == Estimate(value=0.0)


def test_estimates_are_told_with_three_digits_and_thousands_in_full_with_separators():
    assert Estimate(value=0.0123456, low=-2.5, high=0.5).in_words(1000) == "12.3 (-2,500 to 500)"
    assert Estimate(value=999.4, low=999.6, high=1234567.8).in_words() == "999 (1,000 to 1,234,568)"
    assert Estimate(value=1.0).in_words() == "1"
    assert Estimate(value=3e-31, low=1e-31, high=5e-5).in_words() == "0 (0 to 0.0001)"
    assert Estimate(value=None).in_words() == "-"


def test_the_same_sets_have_the_same_interval():
    rng = np.random.default_rng(0)
    one, other = two_levels(rng, 4, 2, 3), independent(rng.normal(size=(9, 3)), "sample")
    first, again = (estimate(KernelDistance(one, other), one, other) for _ in range(2))
    assert first == again
    assert first.low < first.value < first.high
