"""Values that travel between the rooms: frozen, numpy only.

Shape letters: T frames, H height, W width; L latent channels, t latent frames, h, w latent height and width.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import google_crc32c
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


Warn = Callable[[str], None]
"""Receives a short warning about a video that was read nevertheless."""

Range = tuple[float, float]
"""Two pixel values, the lower one first: they become 0 and 1."""

Box = tuple[int, int, int, int]
"""A rectangle of a frame in pixels: left, top, width, height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which frames below a path make up a video, where it is not one whole file.

    files: names in the folder at that path, one frame each, in order. part: which video of a file or series
    that holds several. start_seconds, stop_seconds: a half-open stretch of its time; None means from the
    start, or to the end.
    """

    files: tuple[str, ...] = ()
    part: str | None = None
    start_seconds: float | None = None
    stop_seconds: float | None = None

    def to_text(self) -> str:
        """Canonical JSON of the fields that differ from WHOLE; empty for WHOLE."""
        values = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return json.dumps(values, sort_keys=True, separators=(",", ":")) if values else ""

    @property
    def stretch(self) -> str:
        """How an id ends by default that names a stretch of time, such as `@0-1.5s`; empty for all of it."""
        if self.start_seconds is None and self.stop_seconds is None:
            return ""
        stop = "" if self.stop_seconds is None else f"{self.stop_seconds:g}"
        return f"@{self.start_seconds or 0:g}-{stop}s"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of `to_text`; raises ValueError for any other text."""
        try:
            values = json.loads(text) if text else {}
            selection = cls(**values | {"files": tuple(values.get("files", ()))})
        except (AttributeError, RecursionError, TypeError) as error:
            raise ValueError(f"not a selection of frames: {text[:200]!r}") from error
        texts = [*selection.files, selection.part or ""]
        seconds = [selection.start_seconds or 0.0, selection.stop_seconds or 0.0]
        is_sound = all(isinstance(each, str) for each in texts) and all(map(_is_finite, seconds))
        if not is_sound or selection.to_text() != text:
            raise ValueError(f"not a selection of frames: {text[:200]!r}")
        return selection


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < math.inf


WHOLE = Selection()
"""One whole file."""


def source_id(video_id: str, selection: Selection) -> str:
    """The id of the whole that a video is taken from: without the name of its part and its stretch."""
    whole = video_id.removesuffix(f"/{selection.part}") if selection.part else video_id
    return whole.removesuffix(selection.stretch)


class Source(NamedTuple):
    """The file, or files, that a video's frames come from, and their state when they were last looked at.

    path: its file, or the folder of its files; empty where a cache hides names. num_bytes, mtime_ns: of its
    file; the sum and the latest for several files. sha256: hash of their content, empty while unknown.
    A named tuple, since a cache may hold a million.
    """

    path: str
    num_bytes: int
    mtime_ns: int
    sha256: str = ""
    selection: Selection = WHOLE

    def without_names(self) -> Self:
        """The same without its path, and with hashes in place of the names of its files."""
        files = tuple(map(hashed_name, self.selection.files))
        return self._replace(path="", selection=replace(self.selection, files=files))


def hashed_name(name: str) -> str:
    """What replaces a name that is to be hidden: half of its SHA-256, 32 hexadecimal digits."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Annotation(NamedTuple):
    """What people know about a video: the subject it shows, empty if unknown, and labels by name."""

    subject: str = ""
    labels: Mapping[str, str] = MappingProxyType({})

    def updated(self, newer: Annotation) -> Annotation:
        """Both, where `newer` wins: its subject if it names one, and each of its labels."""
        return Annotation(newer.subject or self.subject, {**self.labels, **newer.labels})

    def columns(self) -> dict[str, str]:
        """What a table of labels has in the row of the video: the labels, and `subject` where it is known."""
        return {**self.labels, "subject": self.subject} if self.subject else dict(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputVideo:
    """A video to encode.

    video_id: its name in the cache. annotation: None if the input holds none; a cache then keeps its own.
    hides_names: no name of a file or folder may reach the cache. copy: where its file was copied to on this
    machine, if its source is an object in a bucket.
    """

    video_id: str
    source: Source
    annotation: Annotation | None = None
    hides_names: bool = False
    copy: Path | None = None

    @property
    def path(self) -> Path:
        """Its file, or the folder of its files, on this machine."""
        return self.copy or Path(self.source.path)

    @property
    def selection(self) -> Selection:
        """Which frames below its path it consists of."""
        return self.source.selection

    @property
    def recorded_source(self) -> Source:
        """The source as a cache may keep it."""
        return self.source.without_names() if self.hides_names else self.source


class Frame(NamedTuple):
    """One gray frame as stored, before any resizing.

    pixels: (H, W) uint8, uint16, int16 or float32, finite, in the file's own unit.
    pts_seconds: presentation time since the first frame; None if the file states no times.
    sample_aspect_ratio: displayed width of a pixel over its height. is_damaged: the decoder concealed errors.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.int16] | npt.NDArray[np.float32]
    pts_seconds: float | None
    sample_aspect_ratio: float = 1.0
    is_damaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHeader:
    """What a video file claims about itself, true or not; None where it claims nothing.

    num_frames: as counted in the header, else duration times frame rate. seconds: duration.
    """

    num_frames: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """An opened video, which can be read repeatedly; so far only its type has been determined.

    frames: yields all frames in order, in bounded memory. auto_range: the pixel values that become 0 and 1
    by default (the full range of 8-bit video, the Hounsfield range, a DICOM window), or None if the file does
    not define them and percentiles of all frames are to be used; may read all frames. header: what the file
    claims about its length; decodes nothing. is_inverted: the lowest value is white.
    Each call may raise DecodeError.
    """

    frames: Callable[[], Iterator[Frame]]
    auto_range: Callable[[], Range | None]
    header: Callable[[], VideoHeader]
    is_inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentPosterior:
    """The VAE's posterior for one video: mean and standard deviation, each (L, t, h, w)."""

    mean: FloatArray
    std: FloatArray

    def __post_init__(self) -> None:
        if self.mean.ndim != 4 or self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean and std must both be (L, t, h, w): got {self.mean.shape} and {self.std.shape}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentStatistics:
    """Checksums and exact sums of one video's stored latents.

    frame_crc32c: the CRC-32C of each latent frame of mean, then of each of std, stack padding included, each
    as four little-endian bytes; see `frame_checksums`. The rest covers the latent frames of VAE calls
    without padding (see `Timing.num_unpadded`): count is the number of values per channel, the sums are per
    channel, in float64.
    """

    frame_crc32c: bytes
    count: int
    sum_mean: tuple[float, ...]
    sum_mean_squared: tuple[float, ...]
    sum_std_squared: tuple[float, ...]

    @property
    def crc32c(self) -> int:
        """One checksum of all latents of the video."""
        crc32c: int = google_crc32c.value(self.frame_crc32c)
        return crc32c


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecord:
    """What the cache knows about one committed video: a row of a commit record.

    start, stop: half-open range of latent frames on the cache's time axis, stack padding included.
    num_frames: decoded frames, without padding. fps: median frame rate, 0.0 if unknown. pts_seconds: the
    time of every frame if the rate varies, else None. height, width: of the source's frames, in pixels.
    value_range: pixel values that became 0 and 1. box: the part of each frame that was kept before it became
    square, empty for all of it. versions: of the software that encoded it. batch: stacks per VAE call.
    sequence: the number of its commit.
    """

    video_id: str
    start: int
    stop: int
    num_frames: int
    fps: float
    pts_seconds: tuple[float, ...] | None
    source: Source
    height: int
    width: int
    value_range: tuple[float, ...] = ()
    box: tuple[int, ...] = ()
    annotation: Annotation = Annotation()  # noqa: RUF009  (a tuple)
    latents: LatentStatistics
    warnings: tuple[str, ...]
    versions: dict[str, str]
    device: str
    batch: int
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """A video that could not be encoded: a value with a reason, never an exception that stops the others."""

    video_id: str
    source: Source
    kind: str
    reason: str
    traceback: str = ""
    sequence: int = 0
