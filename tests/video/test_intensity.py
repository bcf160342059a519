"""Which values become black and white: numpy over the whole array is the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from tests.video.made import video_of
from vidlat.errors import ConfigError
from vidlat.video.intensity import find_range, to_unit

SHAPE = (3, 4, 5)
wholes = st.sampled_from([np.uint8, np.uint16, np.int16]).flatmap(lambda dtype: arrays(dtype, SHAPE))
floats = arrays(np.float32, SHAPE, elements=st.floats(-1e6, 1e6, width=32))
any_floats = arrays(np.float32, SHAPE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def expected_percentile(values):
    values = values.astype(np.float64)
    low, high = values.min(), np.percentile(values, 99.5)
    return low, high if high > low else values.max()


@given(wholes | floats | any_floats)
def test_percentile_is_that_of_numpy_over_all_frames(values):
    expected = expected_percentile(values)
    assert find_range(video_of(values), "percentile") == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("outlier", [1e6, 1e30, -1e30])
def test_an_outlier_does_not_make_white_less_exact(outlier):
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 300, (20, 32, 32)).astype(np.float32)
    values[3, 4, 5] = outlier
    low, high = find_range(video_of(values), "percentile")
    assert (low, high) == pytest.approx(expected_percentile(values), rel=1e-12)
    assert high < 5000


def test_where_nearly_all_is_background_white_is_the_highest_value():
    values = np.zeros((10, 20, 20), np.uint16)
    values[0, 0, 0] = 700
    assert find_range(video_of(values), "percentile") == (0, 700)


@given(wholes | floats)
def test_minmax_is_the_lowest_and_the_highest_of_all_frames(values):
    assert find_range(video_of(values), "minmax") == (values.min(), values.max())


@pytest.mark.parametrize(
    ("intensity", "expected", "num_reads"),
    [
        ("auto", (5.0, 9.0), 0),
        ("uint8", (0.0, 255.0), 0),
        ("ct", (-1000.0, 1000.0), 0),
        ("-160,240", (-160.0, 240.0), 0),
        ("minmax", (0.0, 59.0), 1),
        ("percentile", (0.0, pytest.approx(58.705)), 1),
    ],
)
def test_no_frame_is_read_more_often_than_needed(intensity, expected, num_reads):
    video = video_of(np.arange(60, dtype=np.uint8).reshape(SHAPE), auto_range=(5.0, 9.0))
    assert find_range(video, intensity) == expected
    assert video.frames.num_reads == num_reads


def test_percentile_of_floats_takes_two_passes():
    video = video_of(np.arange(60, dtype=np.float32).reshape(SHAPE))
    assert find_range(video, "percentile") == (0, pytest.approx(58.705))
    assert video.frames.num_reads == 2


def test_auto_is_the_percentile_where_the_file_has_no_range():
    values = np.arange(60, dtype=np.uint16).reshape(SHAPE)
    video = video_of(values, auto_range=None)
    assert find_range(video, "auto") == find_range(video, "percentile")


def test_an_invalid_intensity_is_refused():
    with pytest.raises(ConfigError, match="intensity"):
        find_range(video_of(np.zeros(SHAPE, np.uint8)), "bright")


@given(arrays(np.uint8, (4, 5)))
def test_bytes_become_their_share_of_255_to_the_last_bit(pixels):
    np.testing.assert_array_equal(to_unit(pixels, (0, 255)), pixels.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(
        to_unit(pixels.astype(np.uint16) * 257, (0, 65535)), to_unit(pixels, (0, 255))
    )


@given(wholes | floats, st.floats(-1e5, 1e5), st.floats(1, 1e5))
@settings(max_examples=50)
def test_values_are_mapped_linearly_and_cut_at_both_ends(values, low, extent):
    got = to_unit(values[0], (low, low + extent))
    expected = np.clip((values[0].astype(np.float64) - low) / extent, 0, 1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(
        got, expected, atol=1e-6 * max(1, np.abs(values).max(), abs(low)) / extent + 1e-6
    )
    np.testing.assert_array_equal(to_unit(values[0], (low, low + extent), is_inverted=True), 1 - got)


def test_range_without_extent_is_black_and_of_an_inverted_video_white():
    pixels = np.full((2, 2), 7, np.uint8)
    assert to_unit(pixels, (7, 7)).max() == 0
    assert to_unit(pixels, (7, 7), is_inverted=True).min() == 1
