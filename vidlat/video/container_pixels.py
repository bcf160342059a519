"""Pixels of PyAV frames: gray over the full range of their type, rotated as displayed."""

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
"""On some deeper formats, rare ones or floats, FFmpeg's converter aborts the process."""

_PART_VALUES = 1 << 20


@cache
def num_bits(pixel_format: str) -> int:
    """Bits per component of a pixel format. Raises DecodeError for more than MAX_BITS."""
    bits: int = max(component.bits for component in av.VideoFormat(pixel_format).components)
    if bits > MAX_BITS:
        reason = f"pixels of {bits} bits ({pixel_format}); expected at most {MAX_BITS}: convert the video"
        raise DecodeError(reason, "unsupported")
    return bits


class FrameConverter:
    """Converts the frames of one video to gray, all to the dtype that the first frame needs.

    is_deep: True for uint16 (more than 8 bits), False for uint8, None before the first frame. lacks_palette:
    a frame had indices and no palette; they were taken for gray levels.
    """

    def __init__(self) -> None:
        self.is_deep: bool | None = None
        self.lacks_palette = False
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._matrix = (1.0, 0.0, 0.0, 1.0)

    def pixels(self, frame: av.VideoFrame) -> tuple[Pixels, bool]:
        """Pixels (H, W) uint8 or uint16, contiguous, and whether the frame was turned by 90 degrees.

        The array may share FFmpeg's memory. Raises DecodeError.
        """
        bits = num_bits(frame.format.name)
        if self.is_deep is None:
            self.is_deep = bits > 8
        if frame.rotation != self._rotation:
            # Access to side data puts the frame into a reference cycle, which only the garbage collector
            # frees: read it only when the rotation changes.
            self._rotation, self._matrix = frame.rotation, _display_matrix(frame)
        a, b, c, d = self._matrix
        pixels = self._to_gray(frame)
        is_turned = abs(b) + abs(c) > abs(a) + abs(d)
        if is_turned:
            pixels, a, d = pixels.T, c, b
        if a < 0:
            pixels = pixels[:, ::-1]
        if d < 0:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels), is_turned

    def _to_gray(self, frame: av.VideoFrame) -> Pixels:
        # FFmpeg's own conversions are off: palettes by one level, deep RGB by half a level of 8 bits.
        if frame.format.name == "pal8" and not self.is_deep:
            indices, argb = frame.to_ndarray()
            if not argb.any():  # a palette that was declared is opaque
                self.lacks_palette = True
                return np.array(indices)
            luma: Pixels = to_luma(argb[:, 1:])[indices]
            return luma
        if self.is_deep and frame.format.is_rgb:
            return _to_luma_in_parts(self._reformat(frame, "rgb48le"))
        return self._reformat(frame, "gray16le" if self.is_deep else "gray")

    def _reformat(self, frame: av.VideoFrame, pixel_format: str) -> Pixels:
        return self._reformatter.reformat(
            frame,
            format=pixel_format,
            # The same matrix on both sides, or FFmpeg converts between colour spaces on the way to gray.
            src_colorspace=Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            threads=1,
        ).to_ndarray()


def _to_luma_in_parts(rgb: Pixels) -> Pixels:
    """Luma a few rows at a time: the intermediate floats take several times the memory of a frame."""
    num_parts = -(-rgb.size // _PART_VALUES)
    return np.concatenate([to_luma(rows) for rows in np.array_split(rgb, num_parts)])


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """a, b, c, d: the pixel at column x and row y is displayed at a * x + c * y and b * x + d * y."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV fails on side data of a type that it does not name
        turn = math.radians(frame.rotation)
        return math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)
    if matrix is None:
        return 1.0, 0.0, 0.0, 1.0
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return a, b, c, d
