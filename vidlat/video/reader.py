"""One way in for every format: content decides which library reads a file, never its name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from vidlat.errors import DecodeError
from vidlat.types import Frame, VideoHeader
from vidlat.video.container import Warn, is_container, probe_container, read_container
from vidlat.video.dicom import is_dicom, probe_dicom, read_dicom

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpeg .mpg .ts .wmv .flv .gif .dcm .dicom".split()  # noqa: SIM905
)
"""Names that promise a video: such a file is tried, and reported where its content is none."""

_HEAD_BYTES = 512


def is_video(path: Path) -> bool:
    """Whether a file looks like a video by its content, or promises to be one by its name.

    Raises OSError where the file cannot be opened.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    head = _head(path)
    return is_dicom(head) or is_container(head)


def read_frames(path: Path, warn: Warn = lambda _: None) -> Iterator[Frame]:
    """Yield the frames of a video file in bounded memory.

    warn: told, in a few words, what is odd about a file that can be read.
    Raises DecodeError, with a reason that needs no file name, where there are no frames to be had.
    """
    try:
        if not path.stat().st_size:
            raise DecodeError("is an empty file", "empty")
        # A content nobody recognises goes to FFmpeg all the same: it knows more formats than these lines do.
        frames = read_dicom(path) if is_dicom(_head(path)) else read_container(path, warn)
    except OSError as error:
        raise DecodeError(f"cannot be opened: {error.strerror}", "unreadable") from error
    num_frames = 0
    for frame in frames:
        num_frames += 1
        yield frame
    if not num_frames:
        raise DecodeError("holds no frame that decodes", "no-frames")


def read_first_frames(path: Path, num_frames: int) -> Iterator[Frame]:
    """Yield at most the first `num_frames`, without a look at the rest: to measure, not to encode.

    The gray range of a DICOM file comes from these frames alone. Raises DecodeError or OSError.
    """
    is_of_dicom = is_dicom(_head(path))
    frames = read_dicom(path, num_frames) if is_of_dicom else read_container(path, lambda _: None)
    return islice(frames, num_frames)


def probe_video(path: Path) -> VideoHeader:
    """What a file's header states about its length, without decoding; nothing where it cannot be read."""
    try:
        return probe_dicom(path) if is_dicom(_head(path)) else probe_container(path)
    except (DecodeError, OSError):
        return VideoHeader(num_frames=None, seconds=None)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
