"""One way in for every format: content decides which library reads a file, never its name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from vidlat.config import Preprocessing
from vidlat.errors import DecodeError
from vidlat.types import Frame, Selection, Video, VideoHeader, Warn
from vidlat.video.array import is_array, open_array
from vidlat.video.container import is_container, open_container
from vidlat.video.dicom import is_dicom, open_dicom
from vidlat.video.dicom_series import open_dicom_series
from vidlat.video.images import is_image, is_single_picture, open_images, open_tiff
from vidlat.video.nifti import is_nifti, open_nifti
from vidlat.video.preprocessing import PreparedFrame, prepare_video
from vidlat.video.untrusted import warn_once

Kind = Literal["container", "dicom", "nifti", "array", "image"]

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpeg", ".mpg", ".ts", ".wmv", ".flv", ".gif"),
    *(".dcm", ".dicom", ".nii", ".nii.gz", ".npy", ".npz"),
)
"""Names that promise a video: such a file is tried, and reported where its content is none."""

_HEAD_BYTES = 1024
_NO_MEDIA = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: run `git lfs pull`",
    b"<!doctype html": "is a web page: was it saved in place of a download?",
    b"<html": "is a web page: was it saved in place of a download?",
    b"<?xml": "is an XML text, often an error message in place of a download",
}


def kind_of(path: Path) -> Kind | None:
    """Which library reads a file, by its content; None where no format is recognised. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    kinds: dict[Kind, bool] = {
        "dicom": is_dicom(head),
        "nifti": is_nifti(head),
        "array": is_array(head),
        "image": is_image(head),
        "container": is_container(head),
    }
    return next((kind for kind, fits in kinds.items() if fits), None)


def is_named_like_video(path: Path) -> bool:
    """Whether a file's name promises a video."""
    return path.name.lower().endswith(VIDEO_SUFFIXES)


def open_video(path: Path, selection: Selection, warn: Warn) -> Video:
    """Open a file, or what the selection names of it, or of the files in a folder.

    warn: told, in a few words, and once, what is odd about a video that can be read.
    Raises DecodeError, with a reason that needs no file name, where there are no frames to be had.
    """
    warn = warn_once(warn)
    try:
        video = _open_files(path, selection, warn) if selection.files else _open_file(path, selection, warn)
    except OSError as error:
        raise _cannot_be_opened(error) from error
    stretch = selection.start_seconds, selection.stop_seconds
    return replace(video, frames=partial(_frames, video, *stretch), header=partial(_header, video, *stretch))


def lone_file(path: Path) -> tuple[Path, Selection]:
    """How a file that was named by itself is opened: a single picture is a series of one."""
    if path.is_file() and kind_of(path) == "image" and is_single_picture(path):
        return path.parent, Selection(files=(path.name,))
    return path, Selection()


def read_prepared(path: Path, selection: Selection, how: Preprocessing) -> Iterator[PreparedFrame]:
    """The frames of a video as the VAE sees them, whatever is odd about it. Raises DecodeError."""
    yield from prepare_video(open_video(path, selection, _never_mind), how, _never_mind).frames()


def probe_video(path: Path, selection: Selection) -> VideoHeader:
    """What a header states about the length of a video, without decoding. Raises DecodeError."""
    return open_video(path, selection, _never_mind).header()


def _open_files(folder: Path, selection: Selection, warn: Warn) -> Video:
    files = [folder / name for name in selection.files]
    return (open_dicom_series if kind_of(files[0]) == "dicom" else open_images)(files, warn)


def _open_file(path: Path, selection: Selection, warn: Warn) -> Video:
    if not path.stat().st_size:
        raise DecodeError("is an empty file", "empty")
    match kind_of(path):
        case "dicom":
            return open_dicom(path, warn)
        case "nifti":
            return open_nifti(path, warn, selection.part)
        case "array":
            return open_array(path, warn)
        case "image":
            if is_single_picture(path):
                reason = "is a single picture: pictures are a video as numbered files of a folder"
                raise DecodeError(reason, "no-video")
            return open_tiff(path, warn)
        case "container":
            return open_container(path, warn)
    _refuse_no_media(path)
    # A content nobody recognises goes to FFmpeg all the same: it knows more formats than these lines do.
    return open_container(path, warn)


def _refuse_no_media(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, reason in _NO_MEDIA.items():
        if head.startswith(start):
            raise DecodeError(reason, "no-media")


def _frames(video: Video, start_seconds: float | None, stop_seconds: float | None) -> Iterator[Frame]:
    frames = _readable(video)
    if start_seconds is not None or stop_seconds is not None:
        frames = _stretch(frames, start_seconds or 0.0, math.inf if stop_seconds is None else stop_seconds)
    first = next(frames, None)
    if first is None:
        raise DecodeError("holds no frame that decodes, or none in the stretch asked for", "no-frames")
    yield first
    yield from frames


def _stretch(frames: Iterator[Frame], start_seconds: float, stop_seconds: float) -> Iterator[Frame]:
    """The frames from start to stop, timed from the first of them on."""
    first_seconds: float | None = None
    for frame in frames:
        seconds = frame.pts_seconds
        if seconds is None:
            raise DecodeError("states no times: start_seconds and stop_seconds mean nothing", "no-times")
        if seconds >= stop_seconds:
            return
        if seconds >= start_seconds:
            first_seconds = seconds if first_seconds is None else first_seconds
            yield frame._replace(pts_seconds=seconds - first_seconds)


def _readable(video: Video) -> Iterator[Frame]:
    try:
        yield from video.frames()
    except OSError as error:
        raise _cannot_be_opened(error) from error


def _header(video: Video, start_seconds: float | None, stop_seconds: float | None) -> VideoHeader:
    header = video.header()
    if start_seconds is None and stop_seconds is None:
        return header
    if header.seconds is None:
        return VideoHeader(num_frames=None, seconds=None)
    stop = header.seconds if stop_seconds is None else min(stop_seconds, header.seconds)
    seconds = max(0.0, stop - (start_seconds or 0.0))
    share = seconds / header.seconds if header.seconds else 0.0
    num_frames = None if header.num_frames is None else round(share * header.num_frames)
    return VideoHeader(num_frames=num_frames, seconds=seconds)


def _never_mind(_: str) -> None:
    pass


def _cannot_be_opened(error: OSError) -> DecodeError:
    return DecodeError(f"cannot be opened: {error.strerror or type(error).__name__}", "unreadable")
