"""The pixels of a frame of PyAV: gray over the whole range of their type, and the right way up."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from vidlat.errors import DecodeError
from vidlat.video.pixels import Pixels, to_luma

MAX_BITS = 16
"""Over some frames of more, all of them floats or rare, FFmpeg's converter ends the process."""


@cache
def num_bits(pixel_format: str) -> int:
    """How many bits the numbers of a pixel format have. Raises DecodeError for more than MAX_BITS."""
    bits: int = max(component.bits for component in av.VideoFormat(pixel_format).components)
    if bits > MAX_BITS:
        reason = f"has pixels of {bits} bits ({pixel_format}); at most {MAX_BITS} are read"
        raise DecodeError(reason, "unsupported")
    return bits


def to_gray(frame: av.VideoFrame, is_deep: bool, reformatter: VideoReformatter) -> Pixels:
    """(H, W) uint8, or uint16 where deep; often a view of FFmpeg's own memory. Raises DecodeError."""
    num_bits(frame.format.name)
    if frame.format.name == "pal8" and not is_deep:  # FFmpeg's way is off by one level, even for grays
        indices, argb = frame.to_ndarray()
        luma: Pixels = to_luma(argb[:, 1:])[indices]
        return luma
    is_deep_colour = is_deep and frame.format.is_rgb  # and so is this one, by half a level of 8 bits
    converted = reformatter.reformat(
        frame,
        format="rgb48le" if is_deep_colour else "gray16le" if is_deep else "gray",
        # Of one matrix, lest it turns colours to gray by way of colours of another one.
        src_colorspace=Colorspace.ITU601,
        dst_colorspace=Colorspace.ITU601,
        threads=1,
    ).to_ndarray()
    return to_luma(converted) if is_deep_colour else converted


def upright(pixels: Pixels, frame: av.VideoFrame) -> tuple[Pixels, bool]:
    """The pixels, turned and mirrored as the frame's display matrix says; whether they lay on the side."""
    a, b, c, d = _display_matrix(frame)
    is_turned = abs(b) + abs(c) > abs(a) + abs(d)
    if is_turned:
        pixels, a, d = pixels.T, c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels), is_turned


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """a, b, c, d: the pixel at x to the right and y down is shown at a * x + c * y and b * x + d * y."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV trips over side data of any kind that it has no name for
        turn = math.radians(frame.rotation)
        return math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return a, b, c, d
