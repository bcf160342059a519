"""Moving pictures inside a page, within a budget of bytes.

H.264 in MP4, as vidlat writes it elsewhere: GIF and animated WebP take several times as much, and have no
controls (docs/how-to/report.md).
"""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.types import WHOLE
from vidlat.video.reader import open_video
from vidlat.video.writer import QUANTIZER, jpeg, write_video

MOST_BYTES = 11_000_000
"""Of all moving pictures of a page; base64 adds a third, and the page stays below 20 MB."""

MOST_FRAMES = 64
"""Frames that a page shows of a clip, from its first on."""

QUANTIZERS = (QUANTIZER, 18, 24, 30, 36)
"""Tried one after the other until a clip is small enough: up to 24 an eye hardly sees a difference."""


Frames = Sequence[npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A moving picture: an MP4, and a JPEG of its middle frame for a page on paper.

    width: in pixels. is_coarse: it was compressed more than the videos that vidlat writes.
    """

    title: str
    note: str
    width: int
    mp4: bytes
    still: bytes
    is_coarse: bool

    @property
    def mp4_uri(self) -> str:
        """The whole MP4 as a data URI."""
        return f"data:video/mp4;base64,{b64encode(self.mp4).decode()}"

    @property
    def still_uri(self) -> str:
        """The whole JPEG as a data URI."""
        return f"data:image/jpeg;base64,{b64encode(self.still).decode()}"


def moving_picture(title: str, note: str, frames: Frames, fps: float, most_bytes: int) -> Moving | None:
    """Frames (H, W) as a moving picture of at most so many bytes; None where none is as small."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moving.mp4"
        for quantizer in QUANTIZERS:
            write_video(path, frames, fps, quantizer)
            mp4, still = path.read_bytes(), _still(frames)
            if len(mp4) + len(still) <= most_bytes:
                width, is_coarse = frames[0].shape[1], quantizer != QUANTIZER
                return Moving(title=title, note=note, width=width, mp4=mp4, still=still, is_coarse=is_coarse)
    return None


def moving_file(title: str, note: str, path: Path, most_bytes: int) -> Moving | None:
    """An MP4 that vidlat has written, as it is, or its first frames compressed more where it is too large.

    A GIF becomes an MP4.

    Raises DecodeError or OSError where it cannot be read.
    """
    read = list(islice(open_video(path, WHOLE, lambda _: None).frames(), MOST_FRAMES))
    frames = [frame.pixels.astype(np.uint8) for frame in read]
    still = _still(frames)
    if path.suffix == ".mp4" and path.stat().st_size + len(still) <= most_bytes:
        width, mp4 = frames[0].shape[1], path.read_bytes()
        return Moving(title=title, note=note, width=width, mp4=mp4, still=still, is_coarse=False)
    seconds = (read[-1].pts_seconds or 0.0) - (read[0].pts_seconds or 0.0)
    fps = (len(read) - 1) / seconds if seconds else 0.0
    return moving_picture(title, note, frames, fps, most_bytes)


def _still(frames: Frames) -> bytes:
    return jpeg(frames[len(frames) // 2])
