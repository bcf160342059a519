"""One way in for every format: content decides which library reads a file, never its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from vidlat.errors import DecodeError
from vidlat.types import Frame
from vidlat.video.container import is_container, read_container
from vidlat.video.dicom import is_dicom, read_dicom

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpeg .mpg .ts .wmv .flv .gif .dcm .dicom".split()  # noqa: SIM905
)
"""Names that promise a video: such a file is tried, and reported where its content is none."""

_HEAD_BYTES = 512


def is_video(path: Path) -> bool:
    """Whether a file looks like a video by its content, or promises to be one by its name.

    Raises OSError where the file cannot be opened.
    """
    return path.suffix.lower() in VIDEO_SUFFIXES or _reader_of(path) is not None


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a video file in bounded memory.

    Raises DecodeError, with a reason that needs no file name, where there are none to be had.
    """
    try:
        if not path.stat().st_size:
            raise DecodeError("is an empty file", "empty")
        reader = _reader_of(path)
    except OSError as error:
        raise DecodeError(f"cannot be opened: {error.strerror}", "unreadable") from error
    num_frames = 0
    # A content nobody recognises goes to FFmpeg all the same: it knows more formats than these lines do.
    for frame in (reader or read_container)(path):
        num_frames += 1
        yield frame
    if not num_frames:
        raise DecodeError("holds no frame that decodes", "no-frames")


def _reader_of(path: Path) -> Callable[[Path], Iterator[Frame]] | None:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if is_dicom(head):
        return read_dicom
    return read_container if is_container(head) else None
