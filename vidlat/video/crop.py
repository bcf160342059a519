"""Cropping: a rectangle given by the user, or the one that contains motion.

Ultrasound and other recordings are surrounded by borders, logos, scales and names that do not move.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vidlat.errors import DecodeError
from vidlat.setting_texts import parse_crop
from vidlat.types import Box, Video, Warn
from vidlat.video.pixels import Pixels

MOST_FRAMES = 300
"""Motion is searched in this many first frames, some ten seconds."""

LEAST_SHARE = 0.05
"""A smaller moving share of the frame is not taken for the recording: the whole frame is kept."""

# Of the range of values, from frame to frame on average. A border changes by a hundredth of a level or so.
_CLEAR_CHANGE, _FAINT_CHANGE = 0.003, 0.0008
_SHARE_OF_TYPICAL_CHANGE = 0.15
_GRAIN = 0.012  # of the shorter side: what is thinner is text or a line, gaps smaller than that are filled
_SHARE_OF_LARGEST = 0.3  # of the largest moving part: another as large is a second view
_MARGIN = 0.01  # of either side of the frame
_THIN_EDGE = 0.05  # of a side: cutting off less gains nothing where nothing is printed
# Text and borders are brighter than this share of the range of values, and change from frame to frame by less
# than this share of their brightness: so does a title that comes or goes once in more than 100 frames.
_PRINTED_BRIGHTNESS, _PRINTED_CHANGE = 0.1, 0.01

Mask = npt.NDArray[np.bool_]
Shares = npt.NDArray[np.float32]


def find_box(video: Video, crop: str, warn: Warn) -> Box | None:
    """Find the part of every frame that is kept, None for all of it; crop: see `setting_texts.parse_crop`.

    auto: the rectangle around the largest moving area and others nearly as large; text, scales and traces are
    too thin to count. A thin black edge of the frame is kept, because dark tissue may reach into it. The
    whole frame is kept, with a warning, where nothing or too little moves, or where frames differ in size.
    Reads MOST_FRAMES frames in bounded memory. Raises DecodeError.
    """
    meaning = parse_crop(crop)
    if meaning == "none":
        return None
    if meaning != "auto":
        return meaning
    box = _box_of_motion(video)
    if isinstance(box, str):
        warn(f"{box}: the whole frame is kept")
        return None
    return box


def cut(pixels: Pixels, box: Box | None) -> Pixels:
    """Cut the box out of a frame (H, W). Raises DecodeError where it reaches beyond the frame."""
    if box is None:
        return pixels
    left, top, width, height = box
    rows, columns = pixels.shape
    if left + width > columns or top + height > rows:
        raise DecodeError(
            f"frames of {columns}x{rows} pixels do not contain the crop {left},{top},{width},{height} "
            "(left, top, width, height): give a smaller --crop",
            "crop-outside",
        )
    return pixels[top : top + height, left : left + width]


def _box_of_motion(video: Video) -> Box | str:
    """The part of the frame that is the recording, or the reason why none was found."""
    motion = _motion(video)
    if isinstance(motion, str):
        return motion
    change, brightness = motion
    moving = _moving(change)
    box = _box_round(moving) if moving.any() else (0, 0, 0, 0)
    if box[2] * box[3] < LEAST_SHARE * moving.size:
        return "what moves is too small to be a recording"
    is_still = change < _PRINTED_CHANGE * brightness
    return _with_thin_edges(box, is_still & (brightness > _PRINTED_BRIGHTNESS))


def _motion(video: Video) -> tuple[Shares, Shares] | str:
    """Per pixel, the mean change from frame to frame and the highest brightness; or why there is none.

    Both are shares of the range of all values.
    """
    total: Shares | None = None
    lowest, num_frames = np.inf, 0
    for frame in islice(video.frames(), MOST_FRAMES):
        now = frame.pixels.astype(np.float32)
        if video.is_inverted:
            now = -now
        lowest = min(lowest, float(now.min()))
        if total is None:
            total, brightest, before = np.zeros_like(now), now, now
        if now.shape != total.shape:
            return "its frames change in size"
        total += np.abs(now - before)
        brightest = np.maximum(brightest, now)
        before, num_frames = now, num_frames + 1
    if total is None or not total.any():
        return "nothing moves"
    brightest -= np.float32(lowest)
    extent = brightest.max()
    return total / ((num_frames - 1) * extent), brightest / extent


def _moving(change: Shares) -> Mask:
    """The large areas of clear motion, with all adjoining faint motion."""
    smooth = ndimage.uniform_filter(change, 3)
    grain = max(1, round(_GRAIN * min(change.shape)))
    changing = smooth[smooth > _CLEAR_CHANGE]
    typical = float(np.median(changing)) if changing.size else 0.0
    clear = _large_parts(smooth > max(_CLEAR_CHANGE, _SHARE_OF_TYPICAL_CHANGE * typical), grain)
    # Where a sector is dark, deep in the body, only noise changes.
    faint = _large_parts(smooth > _FAINT_CHANGE, grain)
    labels, _ = ndimage.label(clear | faint)
    sizes = np.bincount(labels.ravel(), weights=clear.ravel())
    sizes[0] = 0
    moving: Mask = np.isin(labels, np.flatnonzero(sizes > _SHARE_OF_LARGEST * sizes.max()))
    return moving


def _large_parts(mask: Mask, grain: int) -> Mask:
    """Remove areas thinner than the grain, and fill gaps as thin."""
    square = np.ones((2 * grain + 1, 2 * grain + 1), np.bool_)
    # Padding with the edge keeps areas that touch it.
    padded = np.pad(mask, 2 * grain, mode="edge")
    opened = ndimage.binary_opening(ndimage.binary_closing(padded, square), square)
    inner = slice(2 * grain, -2 * grain)
    large: Mask = opened[inner, inner]
    return large if large.any() else mask


def _box_round(mask: Mask) -> Box:
    (top, bottom), (left, right) = (
        (max(0, part.start - margin), min(side, part.stop + margin))
        for part, side in zip(ndimage.find_objects(mask.astype(np.uint8))[0], mask.shape, strict=True)
        for margin in [round(_MARGIN * side)]
    )
    return left, top, right - left, bottom - top


def _with_thin_edges(box: Box, printed: Mask) -> Box:
    """Extend the box to edges of the frame that are near, where nothing is printed in between."""
    left, top, width, height = box
    right, bottom = left + width, top + height
    rows, columns = printed.shape
    if left <= _THIN_EDGE * columns and not printed[:, :left].any():
        left = 0
    if columns - right <= _THIN_EDGE * columns and not printed[:, right:].any():
        right = columns
    if top <= _THIN_EDGE * rows and not printed[:top].any():
        top = 0
    if rows - bottom <= _THIN_EDGE * rows and not printed[bottom:].any():
        bottom = rows
    return left, top, right - left, bottom - top
