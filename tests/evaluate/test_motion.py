"""Motion figures: loops over frames, and clips whose motion is known, are the oracles."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vidlat.evaluate.motion import Changes, Motion, MotionMeter


def measure(source, copy, stack=4, sizes=None):
    meter, start = MotionMeter(stack), 0
    for size in sizes or [len(source)]:
        meter.update(source[start : start + size], copy[start : start + size])
        start += size
    return Motion.of(meter.inside, meter.at_borders)


def moving(num_frames, seed=0):
    return np.random.default_rng(seed).random((num_frames, 6, 5))


def by_loops(source, copy, stack, wants_border):
    """Energy ratio, correlation and mean error of the pairs on one side."""
    energy = {"source": 0.0, "copy": 0.0}
    product = error = num_values = 0.0
    for t in range(1, len(source)):
        if (t % stack == 0) != wants_border:
            continue
        for row in range(source.shape[1]):
            for column in range(source.shape[2]):
                one = source[t, row, column] - source[t - 1, row, column]
                other = copy[t, row, column] - copy[t - 1, row, column]
                energy["source"] += one**2
                energy["copy"] += other**2
                product += one * other
                error += (one - other) ** 2
                num_values += 1
    if not num_values:
        return None, None, None
    ratio = energy["copy"] / energy["source"]
    return ratio, product / math.sqrt(energy["source"] * energy["copy"]), error / num_values


@given(
    stack=st.sampled_from([1, 2, 4, 8]),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    seed=st.integers(0, 9),
)
def test_figures_equal_loops_over_frames_and_pixels_for_any_pieces(stack, sizes, seed):
    source, copy = moving(sum(sizes), seed), moving(sum(sizes), seed + 100)
    motion = measure(source, copy, stack, sizes)
    inside, border = (by_loops(source, copy, stack, wants_border) for wants_border in (False, True))
    assert motion.energy_inside == (inside[0] and pytest.approx(inside[0]))
    assert motion.energy_at_borders == (border[0] and pytest.approx(border[0]))
    assert motion.correlation_inside == (inside[1] and pytest.approx(inside[1]))
    assert motion.correlation_at_borders == (border[1] and pytest.approx(border[1]))
    if inside[2] and border[2]:
        assert motion.seam == pytest.approx(border[2] / inside[2])
    else:
        assert motion.seam is None


def test_a_perfect_copy_keeps_everything():
    motion = measure(moving(9), moving(9))
    assert motion.energy_inside == motion.energy_at_borders == motion.energy == 1
    assert motion.correlation == pytest.approx(1)
    assert motion.seam is None  # no error anywhere


def test_means_of_stacks_stand_still_inside_and_jump_at_borders():
    ramp = np.arange(12.0)[:, None, None] * np.ones((1, 4, 4)) / 12
    copy = ramp.reshape(3, 4, 4, 4).mean(1).repeat(4, axis=0)
    motion = measure(ramp, copy)
    assert (motion.energy_inside, motion.correlation_inside) == (0, 0)
    assert motion.energy_at_borders == pytest.approx(16)  # steps of four frames at once
    assert motion.correlation_at_borders == pytest.approx(1)
    assert motion.describe(4, 24) == (
        "Inside stacks of 4 frames 0% of the energy of the motion survives (correlation 0.00), at their "
        "borders 1600%: decoded videos will look like 6 frames per second instead of 24."
    )
    assert "will look like 1 in 4 frames" in motion.describe(4, 0.0)


def test_a_copy_that_moves_the_wrong_way_is_anticorrelated():
    assert measure(moving(9), 1 - moving(9)).correlation == pytest.approx(-1)


@pytest.mark.parametrize("num_frames", [1, 9])
def test_videos_that_do_not_move_have_no_figures_and_valid_json(num_frames):
    still = np.ones((num_frames, 4, 4))
    motion = measure(still, still)
    assert set(motion.to_dict().values()) == {None}
    json.dumps(motion.to_dict(), allow_nan=False)
    assert motion.describe(4, 25).startswith("The videos do not move")


def test_stacks_of_one_frame_have_borders_only():
    motion = measure(moving(5), moving(5), stack=1)
    assert motion.energy_inside is motion.correlation_inside is motion.seam is None
    assert motion.describe(1, 25) == "100% of the energy of the motion survives (correlation 1.00)."


def test_sums_of_videos_weigh_each_by_its_motion():
    lively, calm = moving(9), 0.5 + 1e-6 * moving(9, seed=1)
    noisy = calm + 1e-5 * moving(9, seed=2)  # a hundred times the motion of the calm clip
    meters = [MotionMeter(4), MotionMeter(4)]
    meters[0].update(lively, lively)
    meters[1].update(calm, noisy)
    inside = sum((meter.inside for meter in meters), Changes())
    assert Motion.of(inside, Changes()).energy == pytest.approx(1, abs=1e-3)
