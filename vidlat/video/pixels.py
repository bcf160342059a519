"""Conversion of stored numbers to the pixels of frames: gray, finite, one of four dtypes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.errors import DecodeError
from vidlat.types import Frame, Range, Warn

HOUNSFIELD_RANGE = (-1000.0, 1000.0)
"""CT values are clipped to this range, the one MAISI was trained on."""

Pixels = npt.NDArray[Any]
ReadPixels = Callable[[], Iterator[Pixels]]
"""Starts a pass over the frames of a file: (H, W) uint8, uint16, int16 or float32."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def to_luma(colour: Pixels) -> Pixels:
    """(H, W) BT.601 luma of (H, W, 3 or 4); alpha is ignored, as FFmpeg does.

    uint8 and uint16 are rounded and keep their type, all else becomes float32.
    """
    values = to_pixel_type(colour[..., :3])
    with np.errstate(invalid="ignore"):
        luma: Pixels = values @ _LUMA
    is_rounded = values.dtype in (np.uint8, np.uint16) and colour.dtype != np.bool
    return np.rint(luma).astype(values.dtype) if is_rounded else luma


def to_pixel_type(values: Pixels) -> Pixels:
    """Copy the numbers as native uint8, uint16 or int16 where one of these fits their dtype, else as float32.

    Integers above 2^24 are rounded; numbers beyond float32 become infinite.
    """
    number = _pixel_type(values.dtype)
    if number != np.float32:
        return np.array(values, number, order="C")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(values, number, order="C")


@lru_cache
def _pixel_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    whole = (np.dtype(number) for number in (np.uint8, np.uint16, np.int16))
    return next((number for number in whole if np.can_cast(dtype, number)), np.dtype(np.float32))


def aspect_ratio(width: float, height: float) -> float | None:
    """Width over height of a pixel; None beyond 0.01 and 100, which is an error of the header."""
    ratio = width / height if height > 0 and width > 0 else math.nan
    return ratio if 0.01 < ratio < 100 else None


def finite_pixels(read: ReadPixels, warn: Warn) -> Iterator[Pixels]:
    """Yield the frames with every NaN replaced by the lowest value of all frames.

    The lowest value takes a pass of its own. NaN marks masked areas, which viewers show black. Infinity is a
    computation error that would spoil every range: it raises DecodeError, as do frames of only NaN.
    """
    lowest: np.float32 | None = None
    num_values = 0
    for index, pixels in enumerate(read()):
        if pixels.dtype != np.float32 or np.isfinite(pixels).all():
            yield pixels
            continue
        _refuse_infinity(pixels, index)
        lowest = _lowest(read) if lowest is None else lowest
        num_values += int(np.isnan(pixels).sum())
        yield np.where(np.isnan(pixels), lowest, pixels)
    if lowest is not None:
        warn(f"{num_values} values are NaN: replaced by the lowest value, {lowest:g}")


def extent(frames: Iterable[Frame]) -> Range:
    """The lowest and the highest value of all frames."""
    lowest, highest = math.inf, -math.inf
    for frame in frames:
        lowest, highest = min(lowest, float(frame.pixels.min())), max(highest, float(frame.pixels.max()))
    return lowest, highest


def lie_in_unit_range(read: ReadPixels) -> bool:
    """Whether all values except NaN lie in [0, 1]; stops at the first frame where they do not."""
    # Comparisons with NaN are false, so this negated form lets NaN pass.
    return not any(
        np.fmin.reduce(pixels, axis=None) < 0 or np.fmax.reduce(pixels, axis=None) > 1 for pixels in read()
    )


def _refuse_infinity(pixels: Pixels, index: int) -> None:
    num_infinite = np.isinf(pixels).sum()
    if num_infinite:
        reason = f"{num_infinite} values of frame {index} are infinite or too large for 32 bits"
        raise DecodeError(reason, "not-finite")


def _lowest(read: ReadPixels) -> np.float32:
    lowest = np.float32(np.inf)
    for index, pixels in enumerate(read()):
        _refuse_infinity(pixels, index)
        lowest = np.fmin(lowest, np.fmin.reduce(pixels, axis=None))
    if np.isinf(lowest):
        raise DecodeError("all values are NaN; expected numbers", "not-finite")
    return lowest
