"""Even times: brute force over all frames is the oracle."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vidlat.errors import DecodeError
from vidlat.types import Frame
from vidlat.video.resample import resample


def frames_at(times):
    """Frame number k, all of whose pixels are k, at the k-th time."""
    return [Frame(pixels=np.full((1, 1), k, np.uint16), pts_seconds=t) for k, t in enumerate(times)]


def run(times, fps, warn=print):
    return [(int(f.pixels[0, 0]), f.pts_seconds) for f in resample(iter(frames_at(times)), fps, warn)]


# Times and rates in powers of two, so that no rounding decides what is as near.
gaps = st.lists(st.integers(1, 64), max_size=20)


@given(gaps, st.sampled_from([0.5, 1, 2, 4, 8, 16, 64]))
def test_each_time_has_the_frame_nearest_to_it_of_two_the_earlier(gaps, fps):
    times = np.concatenate([[0], np.cumsum(gaps)]) / 16
    end = times[-1] + (gaps[-1] / 16 if gaps else 1 / fps)
    wanted = np.arange(0, end * fps) / fps
    nearest = [int(np.abs(times - time).argmin()) for time in wanted]
    assert run(times.tolist(), fps) == list(zip(nearest, wanted.tolist(), strict=True))


@pytest.mark.parametrize("fps", [1, 23.976, 25, 30000 / 1001, 100])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 250])
def test_rate_that_is_the_videos_own_changes_nothing(fps, num_frames):
    times = [k / fps for k in range(num_frames)]
    assert run(times, fps) == list(enumerate(times))


@pytest.mark.parametrize(("fps", "expected"), [(50, 500), (12.5, 125), (24, 240), (1, 10)])
def test_duration_is_kept(fps, expected):
    found = run([k / 25 for k in range(250)], fps)
    assert len(found) == expected
    assert found[-1][1] == pytest.approx((expected - 1) / fps)


def test_rate_that_varies_is_evened_out():
    times = [0, 0.04, 0.08, 0.12, 0.2, 0.28, 0.36]  # 25 a second, then half of it
    assert [number for number, _ in run(times, 25)] == [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_without_a_rate_or_times_frames_stay_as_they_are():
    told = []
    assert run([0, 0.1, 0.5], 0, told.append) == [(0, 0), (1, 0.1), (2, 0.5)]
    assert told == []
    assert run([None, None], 25, told.append) == [(0, None), (1, None)]
    assert told == ["has no times: all of its frames are used, at no set rate"]
    assert run([], 25) == []


def test_frames_that_go_back_in_time_are_skipped_with_a_warning():
    told = []
    assert [n for n, _ in run([0, 0.04, 0.02, 0.04, None, 0.08], 25, told.append)] == [0, 1, 5]
    assert told == ["3 frames are skipped: not later than the frame before"]


@pytest.mark.parametrize("time", [1e9, 1e300])
def test_a_gap_too_long_to_fill_is_refused(time):
    with pytest.raises(DecodeError, match="gap") as caught:
        run([0, 0.04, time], 25)
    assert caught.value.kind == "bad-times"


def test_frames_are_read_one_at_a_time():
    asked = []

    def frames():
        for frame in frames_at([k / 25 for k in range(10)]):
            asked.append(frame)
            yield frame

    next(resample(frames(), 25, print))
    assert len(asked) == 2
