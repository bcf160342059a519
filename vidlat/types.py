"""Values that travel between the rooms: frozen, validated, numpy only.

Shape letters: T frames, H height, W width; L latent channels, t latent frames, h, w latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """A file (or folder) to encode and the id under which the cache knows it."""

    video_id: str
    path: Path
    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One gray frame as stored, before any resizing.

    pixels: (H, W); uint8 and uint16 use their whole range, float32 lies in [0, 1].
    pts_seconds: presentation time since the first frame; None where the file states no time.
    sample_aspect_ratio: width over height of one pixel on the screen.
    is_damaged: the decoder had to guess parts of it.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]
    pts_seconds: float | None
    sample_aspect_ratio: float = 1.0
    is_damaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHeader:
    """What a video file states about itself, true or not; None where it states nothing.

    num_frames: whole frames, where none are counted the duration times the rate. seconds: its duration.
    """

    num_frames: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentPosterior:
    """The VAE's answer for one video: mean and standard deviation, each (L, t, h, w)."""

    mean: FloatArray
    std: FloatArray

    def __post_init__(self) -> None:
        if self.mean.ndim != 4 or self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean and std must both be (L, t, h, w): got {self.mean.shape} and {self.std.shape}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecord:
    """What the cache knows of one committed video: the row of a commit record.

    start, stop: half-open range of latent frames on the cache's time axis, stack padding included.
    num_frames: decoded frames (without padding). fps: median rate, 0.0 where unknown.
    pts_seconds: every frame's time where the rate varies, else None.
    count, sum_mean, sum_mean_squared, sum_std_squared: exact per-channel float64 statistics over the
    latent frames below ceil(num_frames / time compression); count is values a channel.
    """

    video_id: str
    start: int
    stop: int
    num_frames: int
    fps: float
    pts_seconds: tuple[float, ...] | None
    source_path: str
    source_num_bytes: int
    source_mtime_ns: int
    source_sha256: str
    source_height: int
    source_width: int
    latent_crc32: int
    count: int
    sum_mean: tuple[float, ...]
    sum_mean_squared: tuple[float, ...]
    sum_std_squared: tuple[float, ...]
    warnings: tuple[str, ...]
    versions: dict[str, str]
    device: str
    batch: int
    sequence: int = 0


class CachedSource(NamedTuple):
    """The file a cached video was encoded from, as it was then. A tuple: a cache may hold a million."""

    path: str
    num_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """A video that could not be encoded: a value with a reason, never an exception that stops the rest."""

    video_id: str
    source_path: str
    source_num_bytes: int
    source_mtime_ns: int
    kind: str
    reason: str
    traceback: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """An opened video. Its frames may be read again and again: what needs two passes reads twice.

    frames: yields the frames from the first on, in bounded memory, raising DecodeError. Their pixels are in
    the file's own unit: uint8, uint16, int16 or float32, finite.
    auto_range: the values that `--intensity auto` maps to 0 and 1 (whole range of 8 bit video, Hounsfield
    range, DICOM window); None: the file does not say, percentiles of all frames do.
    is_inverted: the lowest value is white.
    num_frames: stated by the header, None where unknown.
    """

    frames: Callable[[], Iterator[Frame]]
    auto_range: tuple[float, float] | None
    is_inverted: bool = False
    num_frames: int | None = None
