"""Resampling to a constant frame rate, by the true times of the frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from vidlat.errors import DecodeError
from vidlat.types import Frame, Warn

MAX_REPEATS = 100_000
"""The most repeats of one frame: without a limit, a time in error by years would be filled forever."""

_ROUNDING_SECONDS = 1e-6
"""Rounding error of summed times: the end of a video must not start another frame."""


def resample(frames: Iterator[Frame], fps: float, warn: Warn) -> Iterator[Frame]:
    """Yield for each time k / fps the nearest frame, the earlier of two equally near, with time k / fps.

    Covers 0 to the end of the last frame, which lasts as long as the one before. With fps 0, or without
    times, frames are yielded unchanged. Raises DecodeError for a gap of more than MAX_REPEATS frames.
    """
    first = next(frames, None)
    if first is None:
        return
    if not fps or first.pts_seconds is None:
        if fps:
            warn("has no times: all of its frames are used, at no set rate")
        yield first
        yield from frames
        return
    times = (index / fps for index in count())
    time = next(times)
    before, start, step = first, first.pts_seconds, 1 / fps
    for frame, seconds in _rising(frames, start, warn):
        step = seconds - start
        if step * fps > MAX_REPEATS:
            raise DecodeError(
                f"a gap of {step:.0f} seconds between two frames: its times are wrong", "bad-times"
            )
        while abs(time - start) <= abs(seconds - time):
            yield before._replace(pts_seconds=time)
            time = next(times)
        before, start = frame, seconds
    while time < start + step - _ROUNDING_SECONDS or time == 0:
        yield before._replace(pts_seconds=time)
        time = next(times)


def _rising(frames: Iterator[Frame], start: float, warn: Warn) -> Iterator[tuple[Frame, float]]:
    """The frames whose time is after that of the previous one, with their time."""
    num_left_out = 0
    for frame in frames:
        if frame.pts_seconds is None or frame.pts_seconds <= start:
            num_left_out += 1
            continue
        start = frame.pts_seconds
        yield frame, start
    if num_left_out:
        warn(f"{num_left_out} frames are skipped: not later than the frame before")
