"""A video to the frames that the VAE sees: rate, then box, then gray levels, then square."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vidlat.config import Preprocessing
from vidlat.types import Box, Frame, Range, Video, Warn
from vidlat.video.crop import cut, find_box
from vidlat.video.intensity import OnFrame, find_range, to_unit
from vidlat.video.pixels import once
from vidlat.video.preprocess import to_square
from vidlat.video.resample import resample


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFrame:
    """A frame as the VAE sees it.

    pixels: (size, size) float32 in [0, 1]. pts_seconds, is_damaged: of the frame it was made from, the time
    after resampling. height, width: of that frame, in pixels.
    """

    pixels: npt.NDArray[np.float32]
    pts_seconds: float | None
    is_damaged: bool
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedVideo:
    """A video of which all is known that its frames have in common.

    value_range: the values that become 0 and 1. box: the part of a frame that is kept, None for all.
    frames: yields the prepared frames in bounded memory; may be called again. Raises DecodeError.
    """

    value_range: Range
    box: Box | None
    frames: Callable[[], Iterator[PreparedFrame]]


def prepare_video(
    video: Video, how: Preprocessing, warn: Warn, on_frame: OnFrame = lambda: None
) -> PreparedVideo:
    """Find out what the frames have in common, reading all of them only where that takes it.

    warn: told what is odd, once. on_frame: called for each frame that is read for that; may raise, to end it.
    Raises DecodeError.
    """
    warn = once(warn)
    box = find_box(video, how.crop, warn, on_frame)
    kept = video if box is None else replace(video, frames=lambda: _cut_frames(video, box))
    value_range = find_range(kept, how.intensity, on_frame)

    def frames() -> Iterator[PreparedFrame]:
        for frame in resample(video.frames(), how.fps, warn):
            unit = to_unit(cut(frame.pixels, box), value_range, video.is_inverted)
            height, width = frame.pixels.shape
            yield PreparedFrame(
                pixels=to_square(unit, frame.sample_aspect_ratio, how.size, how.fit),
                pts_seconds=frame.pts_seconds,
                is_damaged=frame.is_damaged,
                height=height,
                width=width,
            )

    return PreparedVideo(value_range=value_range, box=box, frames=frames)


def _cut_frames(video: Video, box: Box) -> Iterator[Frame]:
    for frame in video.frames():
        yield frame._replace(pixels=cut(frame.pixels, box))
