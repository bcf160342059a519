"""Frames to squares: geometry by brute force, values by their type's range."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from vidlat.video.intensity import to_unit
from vidlat.video.preprocessing import to_square

FITS = ["crop", "letterbox", "stretch"]


def prepare(pixels, size, fit, aspect=1.0):
    highest = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    return to_square(to_unit(pixels, (0, highest)), aspect, size, fit)


def blocks(values, block):
    """Every value as a square of equal pixels."""
    return np.kron(np.asarray(values, np.uint8), np.ones((block, block), np.uint8))


def block_means(pixels, size):
    """Shrinking by a whole factor as a plain mean: what antialiasing must come close to inside a block."""
    height, width = pixels.shape
    return pixels.reshape(size, height // size, size, width // size).mean((1, 3)) / 255


@pytest.mark.parametrize("fit", FITS)
def test_square_of_the_right_size_stays_as_it_is(fit):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24), np.uint8)
    np.testing.assert_array_equal(prepare(pixels, 24, fit), pixels.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("wide", [True, False])
def test_crop_cuts_both_ends_of_the_longer_side_equally(wide):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 36), np.uint8)
    expected = pixels[:, 10:26] / np.float32(255)
    if not wide:
        pixels, expected = pixels.T, expected.T
    np.testing.assert_array_equal(prepare(pixels, 16, "crop"), expected)


@pytest.mark.parametrize("wide", [True, False])
def test_letterbox_keeps_everything_between_black_bars(wide):
    pixels = np.random.default_rng(0).integers(1, 256, (16, 36), np.uint8)
    expected = np.zeros((36, 36), np.float32)
    expected[10:26] = pixels / np.float32(255)
    if not wide:
        pixels, expected = pixels.T, expected.T
    np.testing.assert_array_equal(prepare(pixels, 36, "letterbox"), expected)


def test_stretch_fills_the_square_with_the_whole_frame():
    pixels = blocks([[0, 255], [100, 30]], 16)[:, ::2]  # 32 high, 16 wide
    got = prepare(pixels, 16, "stretch")
    quarters = got[4, 4], got[4, 12], got[12, 4], got[12, 12]
    assert quarters == pytest.approx(np.array([0, 255, 100, 30]) / 255)


@pytest.mark.parametrize("fit", FITS)
def test_shrinking_averages_instead_of_picking_pixels(fit):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64), np.uint8)
    got = prepare(pixels, 8, fit)
    # A triangle twice as wide as a block: noise shrinks to about the spread of a mean of 64 pixels.
    assert got.std() < 1.2 * block_means(pixels, 8).std()
    assert abs(got.mean() - pixels.mean() / 255) < 0.01
    checkers = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    np.testing.assert_allclose(prepare(checkers.astype(np.uint8), 8, fit), 0.5, atol=0.01)


def test_pixels_twice_as_wide_as_high_are_made_square():
    pixels = np.random.default_rng(0).integers(1, 256, (16, 8), np.uint8)  # shown 16 x 16
    np.testing.assert_array_equal(prepare(pixels, 16, "crop", 2.0), prepare(pixels, 16, "stretch"))
    np.testing.assert_array_equal(prepare(pixels, 16, "letterbox", 2.0), prepare(pixels, 16, "stretch"))
    wide = prepare(np.full((16, 16), 255, np.uint8), 16, "letterbox", 2.0)  # shown 16 x 32
    np.testing.assert_array_equal(wide, np.repeat([0.0, 1.0, 1.0, 0.0], 4)[:, None].repeat(16, 1))
    cut = prepare(blocks([[9, 50, 50, 9]], 4).repeat(4, 0), 16, "crop", 2.0)  # shown 16 x 32, middle half
    assert cut[:, 4:12] == pytest.approx(50 / 255)


@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    size=st.integers(1, 40),
    fit=st.sampled_from(FITS),
    aspect=st.sampled_from([1.0, 9 / 8, 0.5, 3.0, 1 / 3]),
)
@settings(deadline=None, max_examples=200)
def test_any_frame_becomes_a_contiguous_square_within_its_own_range(pixels, size, fit, aspect):
    got = prepare(pixels, size, fit, aspect)
    assert got.shape == (size, size)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    lowest = 0 if fit == "letterbox" else pixels.min() / 255
    assert lowest - 1e-6 <= got.min() <= got.max() <= pixels.max() / 255 + 1e-6
    assert 0 <= got.min() <= got.max() <= 1


@given(pixels=arrays(np.uint8, (12, 18)), size=st.sampled_from([8, 12, 31]), fit=st.sampled_from(FITS))
@settings(deadline=None, max_examples=50)
def test_the_same_picture_in_any_type_gives_the_same_numbers(pixels, size, fit):
    expected = prepare(pixels, size, fit)
    np.testing.assert_array_equal(prepare(pixels.astype(np.uint16) * 257, size, fit), expected)
    np.testing.assert_array_equal(prepare((pixels / 255).astype(np.float32), size, fit), expected)


@pytest.mark.parametrize("value", [0, 255])
def test_black_is_0_and_white_is_1(value):
    for dtype in (np.uint8, np.uint16):
        pixels = np.full((5, 9), value / 255 * np.iinfo(dtype).max, dtype)
        for fit in ("crop", "stretch"):
            np.testing.assert_array_equal(prepare(pixels, 7, fit), value / 255)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    ("shape", "aspect"), [((1, 1), 1.0), ((1, 5000), 1.0), ((5000, 3), 9.0), ((2, 2), 0.01)]
)
def test_frame_of_an_odd_shape_becomes_a_square(shape, aspect, fit):
    got = prepare(np.full(shape, 255, np.uint8), 16, fit, aspect)
    assert got.shape == (16, 16)
    assert got.max() == 1
