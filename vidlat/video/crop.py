"""Which part of a frame is kept: a rectangle that the user names, or the one in which something moves.

Ultrasound and other recordings stand in a picture of borders, logos, scales and names that do not move.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vidlat.config import parse_crop
from vidlat.errors import DecodeError
from vidlat.types import Box, Video, Warn
from vidlat.video.intensity import OnFrame
from vidlat.video.pixels import Pixels

MOST_FRAMES = 300
"""Frames that are looked at, from the first on: a dozen seconds show what moves."""

LEAST_SHARE = 0.05
"""A part of the frame smaller than this is no recording: then all is kept."""

# Of the range of values, from frame to frame on average. A border changes by a hundredth of a level or so.
_CLEAR_CHANGE, _FAINT_CHANGE = 0.003, 0.0008
_SHARE_OF_TYPICAL_CHANGE = 0.15
_GRAIN = 0.012  # of the shorter side: what is thinner is text or a line, gaps smaller than that are filled
_SHARE_OF_LARGEST = 0.3  # of the largest moving part: another as large is a second view
_MARGIN = 0.01  # of either side of the frame

Mask = npt.NDArray[np.bool_]


def find_box(video: Video, crop: str, warn: Warn, on_frame: OnFrame = lambda: None) -> Box | None:
    """The part of all frames that is kept, None for all of them; crop: see `config.parse_crop`.

    auto: the rectangle round the largest part that changes from frame to frame, and round others nearly as
    large; text, scales and traces are too thin to count. All is kept, with a warning, where nothing moves or
    too little. Looks at MOST_FRAMES, in bounded memory. Raises DecodeError.
    """
    meaning = parse_crop(crop)
    if meaning == "none":
        return None
    if meaning != "auto":
        return meaning
    change = _mean_change(video, on_frame)
    if change is None:
        warn("nothing moves: all of the frame is kept")
        return None
    moving = _moving(change)
    box = _box_round(moving) if moving.any() else (0, 0, 0, 0)
    if box[2] * box[3] < LEAST_SHARE * change.size:
        warn("what moves is too small to be a recording: all of the frame is kept")
        return None
    return box


def cut(pixels: Pixels, box: Box | None) -> Pixels:
    """That part of a frame (H, W); raises DecodeError where the box reaches beyond it."""
    if box is None:
        return pixels
    left, top, width, height = box
    rows, columns = pixels.shape
    if left + width > columns or top + height > rows:
        raise DecodeError(
            f"has frames of {columns}x{rows} pixels, and --crop {left},{top},{width},{height} is not in them",
            "crop-outside",
        )
    return pixels[top : top + height, left : left + width]


def _mean_change(video: Video, on_frame: OnFrame) -> npt.NDArray[np.float32] | None:
    """How much each pixel changes from frame to frame, on average, as a share of the range of all values.

    None where it is nothing, as of a single frame.
    """
    total: npt.NDArray[np.float32] | None = None
    before: npt.NDArray[np.float32] | None = None
    lowest, highest, num_changes = np.inf, -np.inf, 0
    for frame in islice(video.frames(), MOST_FRAMES):
        on_frame()
        now = frame.pixels.astype(np.float32)
        lowest, highest = min(lowest, float(now.min())), max(highest, float(now.max()))
        if before is None or now.shape != before.shape:
            total, num_changes = np.zeros_like(now), 0  # after a change of size: what comes then counts
        elif total is not None:
            total += np.abs(now - before)
            num_changes += 1
        before = now
    if total is None or not num_changes or not total.any():
        return None
    return total / np.float32(num_changes * (highest - lowest))


def _moving(change: npt.NDArray[np.float32]) -> Mask:
    """The parts in which most changes clearly, and all around them that changes at all."""
    smooth = ndimage.uniform_filter(change, 3)
    grain = max(1, round(_GRAIN * min(change.shape)))
    clear = _large_parts(smooth > max(_CLEAR_CHANGE, _SHARE_OF_TYPICAL_CHANGE * _typical(smooth)), grain)
    # Deep in the body, where a sector is dark, there is but its noise.
    faint = _large_parts(smooth > _FAINT_CHANGE, grain)
    labels, _ = ndimage.label(clear | faint)
    sizes = np.bincount(labels.ravel(), weights=clear.ravel())
    sizes[0] = 0
    moving: Mask = np.isin(labels, np.flatnonzero(sizes > _SHARE_OF_LARGEST * sizes.max()))
    return moving


def _large_parts(mask: Mask, grain: int) -> Mask:
    """Without what is thinner than the grain, and with gaps as thin as that filled."""
    square = np.ones((2 * grain + 1, 2 * grain + 1), np.bool_)
    # Beyond the edge lies what is at the edge: nothing that touches it is eaten.
    padded = np.pad(mask, 2 * grain, mode="edge")
    opened = ndimage.binary_opening(ndimage.binary_closing(padded, square), square)
    inner = slice(2 * grain, -2 * grain)
    large: Mask = opened[inner, inner]
    return large if large.any() else mask


def _typical(change: npt.NDArray[np.float32]) -> float:
    """The median of what changes clearly."""
    changing = change[change > _CLEAR_CHANGE]
    return float(np.median(changing)) if changing.size else 0.0


def _box_round(mask: Mask) -> Box:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    (top, bottom), (left, right) = (
        (max(0, int(places[0]) - margin), min(side, int(places[-1]) + 1 + margin))
        for places, side in zip((rows, columns), mask.shape, strict=True)
        for margin in [round(_MARGIN * side)]
    )
    return left, top, right - left, bottom - top
