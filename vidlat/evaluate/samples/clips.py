"""Clips that are measured alike, wherever they come from: decoded frames (T, H, W) of 0..255."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.config import Preprocessing
from vidlat.errors import DecodeError, InputError, one_line
from vidlat.files import require_regular_file
from vidlat.pipeline.decode_videos import to_gray_levels
from vidlat.train.objectives.conditioning import Labels
from vidlat.video.reader import is_named_like_video, lone_file, read_prepared

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip. name: what it is called in pictures. group: of clips that are not independent of each other.

    labels: by name, as far as they are known. frames: decodes or reads it anew, (T, H, W).
    """

    name: str
    group: str
    labels: Labels
    frames: Callable[[], Frames]


def moving_and_still(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """The clips, and the same with their first frame throughout, which look real and do not move.

    A clip that was decoded as one of the first is not decoded again as one of the second: its first frame is
    kept in memory.
    """
    decoded = [_Decoded(clip.frames) for clip in clips]
    moving = [replace(clip, frames=each) for clip, each in zip(clips, decoded, strict=True)]
    still = [replace(clip, frames=each.held) for clip, each in zip(clips, decoded, strict=True)]
    return moving, still


class _Decoded:
    """Frames (T, H, W) of a clip, whose first and number are kept once they were decoded."""

    def __init__(self, frames: Callable[[], Frames]) -> None:
        self._frames = frames
        self._first: Frames | None = None

    def __call__(self) -> Frames:
        frames = self._frames()
        self._first, self._shape = frames[:1].copy(), frames.shape
        return frames

    def held(self) -> Frames:
        """The first frame throughout."""
        first = self()[:1] if self._first is None else self._first
        return np.broadcast_to(first, self._shape).copy()


def videos_in(folder: Path) -> list[Path]:
    """The files of a folder that are named like videos, by name; raises InputError if there is none."""
    try:
        paths = sorted(path for path in folder.iterdir() if is_named_like_video(path) and path.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read as a folder of videos: {one_line(error)}") from error
    if not paths:
        raise InputError(f"{folder}: holds no video; expected files such as .npy, .mp4 or .gif")
    return paths


def read_clip(path: Path, size: int, num_frames: int) -> Frames:
    """The first `num_frames` frames of a video, size x size; larger or smaller ones are resized.

    Raises InputError for a file that cannot be read, or has fewer frames.
    """
    read = _frames(path, Preprocessing(size=size, intensity="uint8"))
    frames = list(islice(read, num_frames))
    if len(frames) == num_frames:
        return to_gray_levels(np.stack(frames))
    raise InputError(
        f"{path}: has {len(frames)} frames; expected at least {num_frames}, as many as a training clip has: "
        "sample longer videos, or remove this one"
    )


def _frames(path: Path, how: Preprocessing) -> Iterator[npt.NDArray[np.float32]]:
    """The frames of a video, whole gray levels as they are; raises InputError."""
    try:
        require_regular_file(path)
        for frame in read_prepared(*lone_file(path), how):
            yield frame.pixels
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a video: {one_line(error)}") from error


def num_frames_of(path: Path) -> int:
    """How many frames a video has; raises InputError for a file that cannot be read."""
    return sum(1 for _ in _frames(path, Preprocessing(intensity="uint8")))


def folder_clips(paths: Sequence[Path], size: int, num_frames: int, labels: Sequence[Labels]) -> list[Clip]:
    """Videos as clips, each independent of all others."""
    return [
        Clip(
            name=path.name,
            group=f"video {path.name}",
            labels=labels_of_clip,
            frames=partial(read_clip, path, size, num_frames),
        )
        for path, labels_of_clip in zip(paths, labels, strict=True)
    ]
