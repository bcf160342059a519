"""Values that travel between the rooms: frozen, validated, numpy only.

Shape letters: T frames, H height, W width; L latent channels, t latent frames, h, w latent height and width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


Warn = Callable[[str], None]
"""Receives what the user should know of a video that was read all the same, in a few words."""

Range = tuple[float, float]
"""Two values of pixels, the lower one first: what becomes 0 and what becomes 1."""

Box = tuple[int, int, int, int]
"""A rectangle of a frame in pixels: left, top, width, height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which frames below a path make a video, where it is not one whole file.

    files: names in the folder that the path is then, a frame each, in order. part: which video of a file that
    holds several. start_seconds, stop_seconds: a half-open stretch of its time; None: from its start, to its
    end.
    """

    files: tuple[str, ...] = ()
    part: str | None = None
    start_seconds: float | None = None
    stop_seconds: float | None = None

    def to_text(self) -> str:
        """Canonical JSON of what is not as in WHOLE; of WHOLE the empty text."""
        values = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return json.dumps(values, sort_keys=True, separators=(",", ":")) if values else ""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of `to_text`; raises ValueError for any other text."""
        values = json.loads(text) if text else {}
        try:
            return cls(**values | {"files": tuple(values.get("files", ()))})
        except (AttributeError, TypeError) as error:
            raise ValueError(f"no selection of frames: {text!r}") from error


WHOLE = Selection()
"""One whole file."""


class Annotation(NamedTuple):
    """What people know of a video: whom it shows, empty where unknown, and values by name."""

    subject: str = ""
    labels: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """A video to encode and the id under which the cache knows it.

    path: its file, or the folder of its files. num_bytes, mtime_ns: of its file; of many files the sum and
    the latest. annotation: None where nobody told any: then the cache keeps what it has. hides_names: no name
    of a file or a folder may reach the cache.
    """

    video_id: str
    path: Path
    num_bytes: int
    mtime_ns: int
    selection: Selection = WHOLE
    annotation: Annotation | None = None
    hides_names: bool = False


class Frame(NamedTuple):
    """One gray frame as stored, before any resizing.

    pixels: (H, W) uint8, uint16, int16 or float32, finite, in the file's own unit.
    pts_seconds: presentation time since the first frame; None where the file states no time.
    sample_aspect_ratio: width over height of one pixel on the screen.
    is_damaged: the decoder had to guess parts of it.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.int16] | npt.NDArray[np.float32]
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
class Video:
    """A video that can be read, again and again: of its file no more was read yet than tells what it is.

    Each call may raise DecodeError.
    frames: yields the frames from the first on, in bounded memory.
    auto_range: the values that become 0 and 1 unless the user says otherwise (the whole range of 8 bit
    video, Hounsfield's, a DICOM window); None: the file does not say, percentiles of all frames do. May read
    all frames.
    header: what the file states of its length; decodes nothing.
    is_inverted: the lowest value is white.
    """

    frames: Callable[[], Iterator[Frame]]
    auto_range: Callable[[], Range | None]
    header: Callable[[], VideoHeader]
    is_inverted: bool = False


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
    source_selection: the text of a Selection. source_sha256: of all its files' content.
    value_range: the source's pixel values that became 0 and 1. box: the part of its frames that was kept
    before they became square, empty for all.
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
    source_selection: str = ""
    value_range: tuple[float, ...] = ()
    box: tuple[int, ...] = ()
    subject: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    sequence: int = 0


class CachedSource(NamedTuple):
    """What a cached video was encoded from, as it was then. A tuple: a cache may hold a million.

    path: empty where names are hidden. selection: the text of a Selection.
    """

    path: str
    num_bytes: int
    mtime_ns: int
    sha256: str
    selection: str = ""


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
    source_selection: str = ""
    sequence: int = 0
