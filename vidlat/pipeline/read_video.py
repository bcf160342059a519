"""The first stage of a task: from a video's files to stacks of prepared frames and its facts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vidlat.config import LatentSettings, Reading
from vidlat.encode.stacking import fold_frames
from vidlat.errors import DecodeError
from vidlat.pipeline.deadline import Clock, Deadline, OnHang, start_deadline
from vidlat.pipeline.failures import failure_from
from vidlat.store.sources import content_hash
from vidlat.timing import Timing
from vidlat.types import Box, FailureRecord, InputVideo, Range, Selection, Video, Warn
from vidlat.video.preprocessing import PreparedVideo, prepare_video
from vidlat.video.reader import open_video


class Stack(NamedTuple):
    """What a VAE call is shown, (S, size, size) in [0, 1], and how many frames of the video are new in it."""

    pixels: npt.NDArray[np.float32]
    num_frames: int


Read = Callable[..., "Iterator[Stack | VideoFacts | FailureRecord]"]
"""`read_video`, or what takes its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What reading a video to its end has found.

    height, width: of its first frame. fps: median rate, 0.0 where unknown. pts_seconds: every frame's time
    where the rate varies, else None. value_range, box, warnings: as in a VideoRecord. sha256: of its content.
    """

    num_frames: int
    height: int
    width: int
    fps: float
    pts_seconds: tuple[float, ...] | None
    value_range: Range
    box: Box | None
    sha256: str
    warnings: tuple[str, ...]


def read_video(
    video: InputVideo,
    settings: LatentSettings,
    timing: Timing,
    deadline: Deadline,
    is_refused: Callable[[], bool],
    open_video: Callable[[Path, Selection, Warn, Reading], Video] = open_video,
) -> Iterator[Stack | VideoFacts | FailureRecord]:
    """Yield a video's stacks, then its facts, or why it could not be read.

    The last stack is filled with the last frame. Ends early once the video is refused.
    """
    warnings: list[str] = []
    try:
        opened = open_video(video.path, video.selection, warnings.append, settings)
        prepared = prepare_video(opened, settings, warnings.append, deadline.check)
        frames = _Frames(prepared, deadline)
        num_stacked = 0
        for pixels in fold_frames(frames, timing):
            yield Stack(pixels, frames.num_frames - num_stacked)
            num_stacked = frames.num_frames
            if is_refused():
                return
        sha256 = content_hash(video.path, video.selection.files)
    except DecodeError as error:
        failure = failure_from(video, error.kind, error)
    except Exception as error:
        # A library that breaks on one file, in whatever way, must not stop the other videos.
        failure = failure_from(video, "decoder-error", error)
    else:
        yield frames.facts(sha256, warnings)
        return
    yield failure


def read_in_time(
    video: InputVideo,
    settings: LatentSettings,
    timing: Timing,
    limit_seconds: float,
    is_refused: Callable[[], bool],
    on_hang: OnHang,
    clock: Clock = time.monotonic,
    read: Read = read_video,
) -> Iterator[Stack | VideoFacts | FailureRecord]:
    """What `read` yields within `limit_seconds`, 0 for no limit; while an item is used no time passes.

    on_hang: as of `start_deadline`.
    """
    with start_deadline(limit_seconds, on_hang, clock) as deadline:
        for item in read(video, settings, timing, deadline, is_refused):
            with deadline.paused():
                yield item


class _Frames:
    """The pixels of a video's frames, to be read once; counts and times what it yields."""

    def __init__(self, video: PreparedVideo, deadline: Deadline) -> None:
        self._video, self._deadline = video, deadline
        self.height = self.width = self.num_damaged = 0
        self.pts_seconds: list[float | None] = []

    @property
    def num_frames(self) -> int:
        """Frames read so far."""
        return len(self.pts_seconds)

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        for frame in self._video.frames():
            if not self.pts_seconds:
                self.height, self.width = frame.height, frame.width
            self.pts_seconds.append(frame.pts_seconds)
            self.num_damaged += frame.is_damaged
            self._deadline.num_frames = self.num_frames
            self._deadline.check()
            yield frame.pixels

    def facts(self, sha256: str, warnings: Sequence[str]) -> VideoFacts:
        """What is known once all frames were read."""
        num_frames = self.num_frames
        fps, varies = frame_rate(self.pts_seconds)
        damaged = [f"damaged frames: {self.num_damaged} of {num_frames}"] if self.num_damaged else []
        return VideoFacts(
            num_frames=num_frames,
            height=self.height,
            width=self.width,
            fps=fps,
            pts_seconds=tuple(seconds or 0.0 for seconds in self.pts_seconds) if varies else None,
            value_range=self._video.value_range,
            box=self._video.box,
            sha256=sha256,
            warnings=(*warnings, *damaged),
        )


def frame_rate(pts_seconds: Sequence[float | None]) -> tuple[float, bool]:
    """Median frame rate, 0.0 where times are missing, and whether the steps differ by more than a tenth."""
    times = [seconds for seconds in pts_seconds if seconds is not None]
    steps = [after - before for before, after in pairwise(times)]
    if len(times) < len(pts_seconds) or not steps or statistics.median(steps) <= 0:
        return 0.0, False
    step = statistics.median(steps)
    return 1 / step, max(steps) > 1.1 * step or min(steps) < 0.9 * step
