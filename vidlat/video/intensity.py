"""Pixel values to gray in [0, 1], with one range of values for all frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.setting_texts import parse_intensity
from vidlat.types import Range, Video
from vidlat.video.pixels import HOUNSFIELD_RANGE, Pixels, extent

TOP_PERCENTILE = 99.5
"""Brighter values are white: MAISI scales MR from the lowest value to this percentile."""

_NUM_HALVES = 1 << 16  # of a sort key of 32 bits
_SIGN = np.uint32(1 << 31)

Counts = npt.NDArray[np.int64]


def find_range(video: Video, intensity: str) -> Range:
    """Find the values that become 0 and 1; intensity: see `setting_texts.parse_intensity`.

    `auto` is the file's own range, else `percentile`: from the lowest value to the 99.5th percentile of all
    values of all frames, or to the highest value where nearly all is background. The result is exact, in
    bounded memory, after one pass over integers or two over floats. Raises DecodeError.
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
    if meaning == "minmax":
        return extent(video.frames())
    lowest, top, highest = _percentile(video)
    return lowest, top if top > lowest else highest


def to_unit(pixels: Pixels, value_range: Range, is_inverted: bool = False) -> npt.NDArray[np.float32]:
    """Scale (H, W) numbers to float32 in [0, 1], clipped to the range; 0 where the range is empty."""
    low, high = value_range
    if high <= low:
        unit = np.zeros(pixels.shape, np.float32)
    else:
        unit = pixels.astype(np.float32)
        if low:
            unit -= np.float32(low)
        unit /= np.float32(high - low)
        # The range of nearly every video is that of its integers, which need no clipping.
        limits = np.iinfo(pixels.dtype) if np.issubdtype(pixels.dtype, np.integer) else None
        if limits is None or limits.min < low or limits.max > high:
            np.clip(unit, 0, 1, out=unit)
    return 1 - unit if is_inverted else unit


def _percentile(video: Video) -> tuple[float, float, float]:
    """The lowest value, the TOP_PERCENTILE as defined by `numpy.percentile`, and the highest value.

    A radix selection, exact whatever the outliers: counts the upper halves of all sort keys, then the lower
    halves of the keys whose upper half contains a wanted rank.
    """
    counts = np.zeros(_NUM_HALVES, np.int64)
    dtype: np.dtype[Any] = np.dtype(np.float32)
    for frame in video.frames():
        dtype = frame.pixels.dtype
        counts += np.bincount(_sort_keys(frame.pixels) >> 16, minlength=_NUM_HALVES)
    last = int(counts.sum()) - 1
    place = last * TOP_PERCENTILE / 100
    found = [_find(counts, rank) for rank in (0, math.floor(place), math.ceil(place), last)]
    if dtype == np.float32:
        lower_counts = _count_lower_halves(video, {upper for upper, _ in found})
        keys = [upper << 16 | _find(lower_counts[upper], rank)[0] for upper, rank in found]
    else:
        keys = [upper << 16 for upper, _ in found]
    lowest, below, above, highest = (_value(key, dtype) for key in keys)
    return lowest, below + (above - below) * (place % 1), highest


def _count_lower_halves(video: Video, uppers: set[int]) -> dict[int, Counts]:
    """For each of these upper halves of sort keys, the count of each lower half."""
    counts = {upper: np.zeros(_NUM_HALVES, np.int64) for upper in uppers}
    for frame in video.frames():
        keys = _sort_keys(frame.pixels)
        for upper in uppers:
            counts[upper] += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=_NUM_HALVES)
    return counts


def _find(counts: Counts, rank: int) -> tuple[int, int]:
    """The bin that contains the value of that rank, and its rank within the bin."""
    ends = counts.cumsum()
    index = int(np.searchsorted(ends, rank, side="right"))
    return index, rank - int(ends[index] - counts[index])


def _sort_keys(pixels: Pixels) -> npt.NDArray[np.uint32]:
    """Unsigned keys that sort like the values; keys of integers end in 16 zero bits."""
    if pixels.dtype != np.float32:
        from_zero = pixels.ravel().astype(np.int32) - np.iinfo(pixels.dtype).min
        return from_zero.astype(np.uint32) << np.uint32(16)
    bits = pixels.ravel().view(np.uint32)
    # Floats sort like their bits except for the sign: set a clear sign bit, invert negative numbers.
    return np.where(bits >= _SIGN, ~bits, bits | _SIGN)


def _value(key: int, dtype: np.dtype[Any]) -> float:
    """The inverse of `_sort_keys` for one key."""
    if dtype != np.float32:
        return float((key >> 16) + np.iinfo(dtype).min)
    bits = key ^ _SIGN if key >= _SIGN else ~key & 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))
