"""Preprocessing of a video for the VAE: frame rate, crop box, gray levels, square size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidlat.config import Fit, Preprocessing
from vidlat.types import Box, Frame, Range, Video, Warn
from vidlat.video.crop import cut, find_box
from vidlat.video.intensity import find_range, to_unit
from vidlat.video.resample import resample
from vidlat.video.untrusted import warn_once

MAX_LABELS = 16
"""Most values of a segmentation mask; most pictures have more."""

MAX_SPECKLE = 3e-4
"""Most pixels of a mask, per pixel, that differ from all four neighbours: its regions are flat and whole.

Drawn organs have 1e-4 at most; real clips cut down to 8 gray levels have from 1e-4 to 4e-2, most above 1e-3.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFrame:
    """A frame ready for the VAE.

    pixels: (size, size) float32 in [0, 1]. pts_seconds: its time after resampling. is_damaged, height, width:
    of the source frame, in pixels.
    """

    pixels: npt.NDArray[np.float32]
    pts_seconds: float | None
    is_damaged: bool
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedVideo:
    """A video whose range and box are known.

    value_range: the values that become 0 and 1. box: the part of a frame that is kept, None for all of it.
    frames: yields the prepared frames in bounded memory; may be called repeatedly. Raises DecodeError.
    """

    value_range: Range
    box: Box | None
    frames: Callable[[], Iterator[PreparedFrame]]


def prepare_video(
    video: Video, how: Preprocessing, warn: Warn, on_frame: Callable[[], None] = lambda: None
) -> PreparedVideo:
    """Find the range and box of a video, reading its frames only where that needs them.

    warn: receives each problem once. on_frame: called for each frame read here; may raise to stop.
    Raises DecodeError.
    """
    warn = warn_once(warn)
    box = find_box(_analysed(video, None, on_frame), how.crop, warn)
    value_range = find_range(_analysed(video, box, on_frame), how.intensity)

    def frames() -> Iterator[PreparedFrame]:
        for frame in resample(_few_levels_told(video.frames(), warn), how.fps, warn):
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


def _few_levels_told(frames: Iterator[Frame], warn: Warn) -> Iterator[Frame]:
    """The same frames; at their end a warning where they are no pictures: flat regions of a few values."""
    levels: set[float] = set()
    num_pixels = num_speckles = 0
    for frame in frames:
        num_pixels += frame.pixels.size
        if len(levels) <= MAX_LABELS:
            levels.update(np.unique(frame.pixels)[: MAX_LABELS + 1].tolist())
            num_speckles += _count_speckles(frame.pixels)
        yield frame
    if len(levels) == 1:
        warn(f"blank: every pixel of every frame is {levels.pop():g}")
    elif len(levels) <= MAX_LABELS < num_pixels / MAX_LABELS and num_speckles <= MAX_SPECKLE * num_pixels:
        values = ", ".join(f"{level:g}" for level in sorted(levels))
        warn(f"holds only the values {values}: a mask rather than a video? --exclude passes over such files")


def _count_speckles(pixels: npt.NDArray[np.generic]) -> int:
    """How many pixels of a frame (H, W), edges aside, differ from all four neighbours."""
    inner = pixels[1:-1, 1:-1]
    neighbours = pixels[:-2, 1:-1], pixels[2:, 1:-1], pixels[1:-1, :-2], pixels[1:-1, 2:]
    return int(np.logical_and.reduce([inner != neighbour for neighbour in neighbours]).sum())


def _analysed(video: Video, box: Box | None, on_frame: Callable[[], None]) -> Video:
    def frames() -> Iterator[Frame]:
        for frame in video.frames():
            on_frame()
            yield frame._replace(pixels=cut(frame.pixels, box))

    return replace(video, frames=frames)


def to_square(
    pixels: npt.NDArray[np.float32], sample_aspect_ratio: float, size: int, fit: Fit
) -> npt.NDArray[np.float32]:
    """Resize (H, W) to (size, size), both in [0, 1], with antialiasing and square pixels.

    `crop` cuts the longer side equally at both ends, `letterbox` adds black bars, `stretch` distorts.
    """
    height, width = pixels.shape
    shown_width = width * sample_aspect_ratio
    if fit == "letterbox":
        scale = size / max(height, shown_width)
        inner = (max(1, round(height * scale)), max(1, round(shown_width * scale)))
        square = np.zeros((size, size), np.float32)
        top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
        square[top : top + inner[0], left : left + inner[1]] = _resize(pixels, inner, (0, 0, width, height))
        return square
    box = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        side = min(height, shown_width)
        cut_x, cut_y = (width - side / sample_aspect_ratio) / 2, (height - side) / 2
        box = (cut_x, cut_y, width - cut_x, height - cut_y)
    return _resize(pixels, (size, size), box)


def _resize(
    pixels: npt.NDArray[np.float32], size: tuple[int, int], box: tuple[float, float, float, float]
) -> npt.NDArray[np.float32]:
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)
