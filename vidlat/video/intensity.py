"""Pixel values to gray in [0, 1]: which value is black and which is white, found once for all frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.config import parse_intensity
from vidlat.types import Range, Video
from vidlat.video.pixels import HOUNSFIELD_RANGE, Pixels

TOP_PERCENTILE = 99.5
"""What is brighter is white: MAISI scales MR from the lowest value to this percentile."""

NUM_BINS = 1 << 16
"""Of a histogram: every value of 16 bits has its own; floats share NUM_BINS between lowest and highest."""

OnFrame = Callable[[], None]
"""Called for every frame that is read to find something out; may raise to end it."""


def find_range(video: Video, intensity: str, on_frame: OnFrame = lambda: None) -> Range:
    """The values that become 0 and 1; intensity: see `config.parse_intensity`.

    `auto` is what the file proposes, else `percentile`: from the lowest value to the 99.5th percentile of all
    values of all frames, or to the highest one where nearly all is background. That percentile is exact for
    integers, for floats within 1 / NUM_BINS of the distance from the lowest to the highest. Bounded memory.
    Raises DecodeError.
    """
    meaning = parse_intensity(intensity)
    if isinstance(meaning, tuple):
        return meaning
    fixed = {"uint8": (0.0, 255.0), "ct": HOUNSFIELD_RANGE}
    if meaning in fixed:
        return fixed[meaning]
    if meaning == "auto":
        proposed = video.auto_range()
        if proposed is not None:
            return proposed
    lowest, highest = _extent(video, on_frame)
    if meaning == "minmax" or lowest == highest:
        return lowest, highest
    top = _percentile(video, lowest, highest, on_frame)
    return lowest, top if top > lowest else highest


def to_unit(pixels: Pixels, value_range: Range, is_inverted: bool = False) -> npt.NDArray[np.float32]:
    """(H, W) numbers as float32 in [0, 1], cut where they lie beyond the range; 0 where that is a point."""
    low, high = value_range
    if high <= low:
        unit = np.zeros(pixels.shape, np.float32)
    else:
        unit = pixels.astype(np.float32)
        if low:
            unit -= np.float32(low)
        unit /= np.float32(high - low)
        np.clip(unit, 0, 1, out=unit)
    return 1 - unit if is_inverted else unit


def _extent(video: Video, on_frame: OnFrame) -> Range:
    lowest, highest = math.inf, -math.inf
    for pixels in _pixels(video, on_frame):
        lowest, highest = min(lowest, float(pixels.min())), max(highest, float(pixels.max()))
    return lowest, highest


def _percentile(video: Video, lowest: float, highest: float, on_frame: OnFrame) -> float:
    """The TOP_PERCENTILE as `numpy.percentile` has it, linear between two neighbours in order."""
    counts: npt.NDArray[np.int64] | None = None
    width = 1.0
    for pixels in _pixels(video, on_frame):
        if counts is None:
            is_whole = np.issubdtype(pixels.dtype, np.integer)
            width = 1.0 if is_whole else (highest - lowest) / NUM_BINS
            counts = np.zeros(NUM_BINS + 1, np.int64)
        bins = ((pixels.ravel().astype(np.float64) - lowest) / width).astype(np.int64)
        counts += np.bincount(bins, minlength=NUM_BINS + 1)
    assert counts is not None
    ends = counts.cumsum()
    rank = (ends[-1] - 1) * TOP_PERCENTILE / 100
    below, above = np.searchsorted(ends, [math.floor(rank), math.ceil(rank)], side="right")
    return lowest + width * float(below + (above - below) * (rank % 1))


def _pixels(video: Video, on_frame: OnFrame) -> Iterator[npt.NDArray[Any]]:
    for frame in video.frames():
        on_frame()
        yield frame.pixels
