"""Frames at even times, chosen from those of a video by their true ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from vidlat.errors import DecodeError
from vidlat.types import Frame, Warn

MAX_REPEATS = 100_000
"""Frames that one may stand for: a time that is off by years would else be filled up for ever."""

_ROUNDING_SECONDS = 1e-6
"""Of sums of times: the end of a video that lasts a second must not begin another frame."""


def resample(frames: Iterator[Frame], fps: float, warn: Warn) -> Iterator[Frame]:
    """Yield for each k / fps the frame nearest in time, of two as near the earlier, and k / fps as its time.

    From 0 to the end of the last frame, which lasts as long as the one before. fps 0, or a video without
    times: its frames stay as they are. Raises DecodeError for a gap that takes MAX_REPEATS frames to fill.
    """
    first = next(frames, None)
    if first is None:
        return
    if not fps or first.pts_seconds is None:
        if fps:
            warn("states no times: its frames are taken as they are")
        yield first
        yield from frames
        return
    times = (index / fps for index in count())
    time = next(times)
    before, start, step = first, first.pts_seconds, 1 / fps
    for frame, seconds in _rising(frames, start, warn):
        step = seconds - start
        if step * fps > MAX_REPEATS:
            raise DecodeError(f"leaves a gap of {step:.0f} seconds between two frames", "bad-times")
        while abs(time - start) <= abs(seconds - time):
            yield before._replace(pts_seconds=time)
            time = next(times)
        before, start = frame, seconds
    while time < start + step - _ROUNDING_SECONDS or time == 0:
        yield before._replace(pts_seconds=time)
        time = next(times)


def _rising(frames: Iterator[Frame], start: float, warn: Warn) -> Iterator[tuple[Frame, float]]:
    """The frames that come after the one before them in time, with their time."""
    num_left_out = 0
    for frame in frames:
        if frame.pts_seconds is None or frame.pts_seconds <= start:
            num_left_out += 1
            continue
        start = frame.pts_seconds
        yield frame, start
    if num_left_out:
        warn(f"{num_left_out} frames do not come after the one before them: left out")
