"""Video streams inside DICOM files, MPEG-2, H.264 and HEVC: handed to FFmpeg as they are."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from vidlat.config import Deinterlace
from vidlat.types import Video, Warn
from vidlat.video.container import open_stream
from vidlat.video.dicom_elements import PixelElement
from vidlat.video.dicom_pixels import stream_fragments


def open_dicom_stream(
    path: Path, element: PixelElement, warn: Warn, deinterlace: Deinterlace, *, is_timed: bool
) -> Video:
    """Open the video stream in the pixel data of a DICOM file; see `open_stream`."""

    @contextmanager
    def open_file() -> Iterator[io.RawIOBase]:
        with path.open("rb") as file:
            yield _Joined(file, stream_fragments(file, element))

    return open_stream(open_file, warn, deinterlace, is_timed=is_timed)


class _Joined(io.RawIOBase):
    """The fragments of a file as one file."""

    def __init__(self, file: IO[bytes], fragments: Sequence[tuple[int, int]]) -> None:
        self._file = file
        self._fragments = fragments
        self._starts = [*accumulate((num_bytes for _, num_bytes in fragments), initial=0)]
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._starts[-1])[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._starts[-1]:
            return 0
        index = bisect_right(self._starts, self._place) - 1
        skipped = self._place - self._starts[index]
        start, num_bytes = self._fragments[index]
        self._file.seek(start + skipped)
        data = self._file.read(min(len(buffer), num_bytes - skipped))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
