"""The pixels of PyAV's frames: gray over the whole range of their type, and the right way up."""

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

_PART_NUMBERS = 1 << 20


@cache
def num_bits(pixel_format: str) -> int:
    """How many bits the numbers of a pixel format have. Raises DecodeError for more than MAX_BITS."""
    bits: int = max(component.bits for component in av.VideoFormat(pixel_format).components)
    if bits > MAX_BITS:
        reason = f"has pixels of {bits} bits ({pixel_format}); at most {MAX_BITS} are read"
        raise DecodeError(reason, "unsupported")
    return bits


class FrameConverter:
    """Converts the frames of one video, all to the number type that suits the first.

    is_deep: whether that is uint16, for more than 8 bits, and not uint8; None before the first frame.
    """

    def __init__(self) -> None:
        self.is_deep: bool | None = None
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._matrix = (1.0, 0.0, 0.0, 1.0)

    def pixels(self, frame: av.VideoFrame) -> tuple[Pixels, bool]:
        """(H, W) uint8 or uint16, contiguous, and whether the frame lay on the side.

        The pixels may be FFmpeg's own memory. Raises DecodeError.
        """
        bits = num_bits(frame.format.name)
        if self.is_deep is None:
            self.is_deep = bits > 8
        if frame.rotation != self._rotation:
            # Side data ties a frame into a cycle, and its memory to the garbage collector: looked at no
            # oftener than that.
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
        if frame.format.name == "pal8" and not self.is_deep:  # FFmpeg's way is off by a level, even for grays
            indices, argb = frame.to_ndarray()
            luma: Pixels = to_luma(argb[:, 1:])[indices]
            return luma
        if self.is_deep and frame.format.is_rgb:  # and so is this one, by half a level of 8 bits
            return _to_luma_by_parts(self._reformat(frame, "rgb48le"))
        return self._reformat(frame, "gray16le" if self.is_deep else "gray")

    def _reformat(self, frame: av.VideoFrame, pixel_format: str) -> Pixels:
        return self._reformatter.reformat(
            frame,
            format=pixel_format,
            # One matrix for all, lest FFmpeg turns one to gray by way of the colours of another.
            src_colorspace=Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            threads=1,
        ).to_ndarray()


def _to_luma_by_parts(rgb: Pixels) -> Pixels:
    """The floats in between take several times the memory of a frame: a few rows of it at a time."""
    num_parts = -(-rgb.size // _PART_NUMBERS)
    return np.concatenate([to_luma(rows) for rows in np.array_split(rgb, num_parts)])


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """a, b, c, d: the pixel at x to the right and y down is shown at a * x + c * y and b * x + d * y."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV trips over side data of any kind that it has no name for
        turn = math.radians(frame.rotation)
        return math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)
    if matrix is None:
        return 1.0, 0.0, 0.0, 1.0
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return a, b, c, d
