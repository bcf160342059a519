"""Videos that a test makes up, frame by frame."""

import contextlib

import numpy as np

from vidlat.errors import DecodeError
from vidlat.types import Frame, Video, VideoHeader
from vidlat.video.dicom_series import read_slice


def video_of(frames, fps=25, auto_range=(0.0, 255.0), is_inverted=False, times=None):
    """A Video of arrays (H, W), timed at `fps` or `times`; `frames.num_reads` tells how often it was read."""
    frames = [np.asarray(pixels) for pixels in frames]
    times = [index / fps for index in range(len(frames))] if times is None else times

    def read():
        read.num_reads += 1
        for pixels, seconds in zip(frames, times, strict=True):
            yield Frame(pixels=pixels, pts_seconds=seconds)

    read.num_reads = 0
    return Video(
        frames=read,
        auto_range=lambda: auto_range,
        header=lambda: VideoHeader(num_frames=len(frames), seconds=None),
        is_inverted=is_inverted,
    )


def opened(function, path, *arguments):
    """What a function of a path and its opened file returns."""
    with path.open("rb") as file:
        return function(path, file, *arguments)


def slices_of(paths):
    """What decides to which series each DICOM file belongs; damaged and absent files are left out."""
    for path in paths:
        with contextlib.suppress(DecodeError, OSError):
            yield opened(read_slice, path)
