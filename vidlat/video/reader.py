"""Opening a video of any format. The content of a file decides which library reads it, never its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Literal

from vidlat.config import Preprocessing, Reading
from vidlat.errors import DecodeError
from vidlat.types import WHOLE, Frame, Selection, Video, VideoHeader, Warn
from vidlat.video.array import is_array, open_array
from vidlat.video.container import is_container, open_container
from vidlat.video.dicom import open_dicom
from vidlat.video.dicom_elements import is_dicom
from vidlat.video.dicom_series import open_dicom_series
from vidlat.video.images import has_pages, is_image, open_images, open_tiff
from vidlat.video.nifti import is_nifti, open_nifti
from vidlat.video.preprocessing import PreparedFrame, prepare_video
from vidlat.video.untrusted import warn_once

Kind = Literal["container", "dicom", "nifti", "array", "image"]

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpeg", ".mpg", ".ts", ".wmv", ".flv", ".gif"),
    *(".dcm", ".dicom", ".nii", ".nii.gz", ".npy", ".npz"),
)
"""Files with these suffixes are expected to be videos: they are tried, and reported if they are none."""

_HEAD_BYTES = 1024
_KINDS: dict[Kind, Callable[[bytes], bool]] = {
    "dicom": is_dicom,
    "nifti": is_nifti,
    "array": is_array,
    "image": is_image,
    "container": is_container,
}
_NO_MEDIA = {
    b"version https://git-lfs": "Git LFS pointer instead of the file itself: run `git lfs pull`",
    b"<!doctype html": "web page instead of a video: download the file again",
    b"<html": "web page instead of a video: download the file again",
    b"<?xml": "XML text instead of a video, often a server's error message: download the file again",
}


def kind_of(file: IO[bytes]) -> Kind | None:
    """The library that reads an opened file, by its content; None for an unknown format. Raises OSError."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return next((kind for kind, fits in _KINDS.items() if fits(head)), None)


def is_named_like_video(path: Path) -> bool:
    """Whether a file has the suffix of a video format."""
    return path.name.lower().endswith(VIDEO_SUFFIXES)


AS_IT_IS = Reading()


def open_video(path: Path, selection: Selection, warn: Warn, how: Reading = AS_IT_IS) -> Video:
    """Open the video that the selection names: a file, a part or time range of it, or files of a folder.

    warn: receives each problem of a readable video once. Raises DecodeError, whose message does not repeat
    the video's path, where it cannot be read.
    """
    warn = warn_once(warn)
    files = [path / name for name in selection.files]
    with _disk_errors():
        video = _open_files(files, warn) if files else _open_file(path, selection.part, warn, how)
    start, stop = selection.start_seconds, selection.stop_seconds
    if start is not None or stop is not None:
        video = _stretch(video, start or 0.0, math.inf if stop is None else stop)
    return replace(video, frames=partial(_frames, video))


def lone_file(path: Path) -> tuple[Path, Selection]:
    """Path and selection to open one named file with; a single image becomes a sequence of one."""
    if path.is_file():
        with path.open("rb") as file:
            if kind_of(file) == "image" and not has_pages(path, file):
                return path.parent, Selection(files=(path.name,))
    return path, WHOLE


def read_prepared(path: Path, selection: Selection, how: Preprocessing) -> Iterator[PreparedFrame]:
    """Yield the preprocessed frames of a video, without its warnings. Raises DecodeError."""
    yield from prepare_video(open_video(path, selection, _ignore, how), how, _ignore).frames()


def probe_video(path: Path, selection: Selection, how: Reading = AS_IT_IS) -> VideoHeader:
    """The length of a video by its header, without decoding. Raises DecodeError."""
    return open_video(path, selection, _ignore, how).header()


def _open_files(files: Sequence[Path], warn: Warn) -> Video:
    with files[0].open("rb") as file:
        is_dicom_series = kind_of(file) == "dicom"
    return (open_dicom_series if is_dicom_series else open_images)(files, warn)


def _open_file(path: Path, part: str | None, warn: Warn, how: Reading) -> Video:
    if not path.stat().st_size:
        raise DecodeError("is an empty file: copy it again", "empty")
    with path.open("rb") as file:
        match kind_of(file):
            case "dicom":
                return open_dicom(path, file, warn, part, how.deinterlace)
            case "nifti":
                return open_nifti(path, file, warn, part)
            case "array":
                return open_array(path, file, warn, how.axes)
            case "image" if has_pages(path, file):
                return open_tiff(path, file, warn)
            case "image":
                reason = "single image; expected a video, or numbered images in a folder"
                raise DecodeError(reason, "no-video")
            case None:
                _refuse_no_media(file.read(_HEAD_BYTES))
    # Unknown content too goes to FFmpeg, which knows more formats than are recognised here.
    return open_container(path, warn, how.deinterlace)


def _refuse_no_media(head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, reason in _NO_MEDIA.items():
        if text.startswith(start):
            raise DecodeError(reason, "no-media")


def _frames(video: Video) -> Iterator[Frame]:
    with _disk_errors():
        frames = video.frames()
        first = next(frames, None)
        if first is None:
            reason = "no decodable frame, or none between start_seconds and stop_seconds"
            raise DecodeError(reason, "no-frames")
        yield first
        yield from frames


def _stretch(video: Video, start_seconds: float, stop_seconds: float) -> Video:
    """The frames in [start, stop), with times since the first of them."""

    def frames() -> Iterator[Frame]:
        first_seconds: float | None = None
        for frame in video.frames():
            seconds = frame.pts_seconds
            if seconds is None:
                reason = "has no times, so start_seconds and stop_seconds cannot be applied: remove them"
                raise DecodeError(reason, "no-times")
            if seconds >= stop_seconds:
                return
            if seconds >= start_seconds:
                first_seconds = seconds if first_seconds is None else first_seconds
                yield frame._replace(pts_seconds=seconds - first_seconds)

    def header() -> VideoHeader:
        whole = video.header()
        if whole.seconds is None:
            return VideoHeader(num_frames=None, seconds=None)
        seconds = max(0.0, min(stop_seconds, whole.seconds) - start_seconds)
        share = seconds / whole.seconds if whole.seconds else 0.0
        num_frames = None if whole.num_frames is None else round(share * whole.num_frames)
        return VideoHeader(num_frames=num_frames, seconds=seconds)

    return replace(video, frames=frames, header=header)


def _ignore(_: str) -> None:
    pass


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn OSError into DecodeError without the path, which a cache may have to hide."""
    try:
        yield
    except OSError as error:
        reason = f"cannot be opened: {error.strerror or type(error).__name__}"
        raise DecodeError(reason, "unreadable") from error
