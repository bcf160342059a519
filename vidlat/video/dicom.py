"""Single-frame and multi-frame DICOM files through pydicom, frame by frame, in the modality's unit.

Only pixels, timing and size are read: see `dicom_elements`. All frames of a file share one range, so that
brightness does not flicker.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, repeat, starmap
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

from vidlat.config import Deinterlace
from vidlat.errors import DecodeError
from vidlat.types import Frame, Range, Video, VideoHeader, Warn
from vidlat.video.dicom_elements import Elements, items, numbers, parsing, read_elements, text
from vidlat.video.dicom_frames import GROUPS_KEYWORDS, FrameOrder, choose_order, frame_orders
from vidlat.video.dicom_pixels import (
    FORMAT_KEYWORDS,
    NO_PIXELS,
    PixelFormat,
    is_video_syntax,
    num_stored_frames,
    read_pixel_format,
    stored_frames,
)
from vidlat.video.dicom_stream import open_dicom_stream
from vidlat.video.pixels import (
    HOUNSFIELD_RANGE,
    Pixels,
    aspect_ratio,
    extent,
    to_luma,
    to_pixel_type,
)
from vidlat.video.untrusted import decode_errors

_PALETTES = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
KEYWORDS = [
    *FORMAT_KEYWORDS,
    *("Modality", "PixelAspectRatio", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *GROUPS_KEYWORDS,
    *("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"),
    *(f"{palette}Descriptor" for palette in _PALETTES),
    *(f"{palette}Data" for palette in _PALETTES),
    *(f"Segmented{palette}Data" for palette in _PALETTES),
]
"""The elements that pixels and timing need; functional groups (geometry, timing, windows) as a whole."""

_WHAT = "cannot be decoded as DICOM"
_IDENTITY = (1.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Palette:
    """The luma of every index from `first` on; indices beyond either end take the value at that end."""

    first: int
    luma: Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomHeader:
    """The parts of a header that pixels and timing need; no patient data.

    rescales: slope and intercept per frame; the last pair serves all further frames. windows: candidate
    ranges, the preferred one first. steps: see `_frame_steps`. order: the frames to read, None for all as
    stored.
    """

    path: Path
    pixel_format: PixelFormat
    palette: _Palette | None
    is_ct: bool
    rescales: tuple[tuple[float, float], ...]
    windows: tuple[Range, ...]
    steps: tuple[float, ...]
    sample_aspect_ratio: float
    order: FrameOrder | None = None

    @property
    def is_inverted(self) -> bool:
        """Whether the lowest value is white."""
        return self.pixel_format.photometric == "MONOCHROME1"

    @property
    def is_gray(self) -> bool:
        return self.pixel_format.photometric.startswith("MONOCHROME")

    @property
    def is_rescaled(self) -> bool:
        return self.is_gray and any(rescale != _IDENTITY for rescale in self.rescales)

    @property
    def pixel_type(self) -> npt.DTypeLike:
        """The dtype of the pixels that `dicom_frames` yields."""
        if self.palette is not None:
            return self.palette.luma.dtype
        if self.is_rescaled:
            return np.dtype(np.float32)
        stored = np.empty((1, 1) if self.is_gray else (1, 1, 3), self.pixel_format.dtype)
        return (to_pixel_type if self.is_gray else to_luma)(stored).dtype


def open_dicom(
    path: Path, file: IO[bytes], warn: Warn, part: str | None = None, deinterlace: Deinterlace = "auto"
) -> Video:
    """Open a DICOM file: stored values, or float32 where a rescale (per frame, shared or global) applies.

    part: the video to open, where the functional groups make several; see `frame_orders`. deinterlace: of a
    video stream, see `open_stream`.

    MONOCHROME1 is reported as inverted; colour becomes luma of the same depth. The range of CT above 8 bits
    is HOUNSFIELD_RANGE. For other gray above 8 bits it is the first window that overlaps the values, which
    takes a pass over them, of: the first frame's (the union where every frame has its own), the shared one,
    the file's; else None. Colour and gray of up to 8 bits range over all stored bits. Times follow from the
    functional groups (trigger delays, time offsets), else, for frames in the order of the file, from the
    first usable of FrameTime, FrameTimeVector, CineRate and RecommendedDisplayFrameRate. Missing frames are a
    warning. A video stream (MPEG-2, H.264, HEVC) is read as `open_stream` does, with the header's times where
    it states any. Raises DecodeError, OSError.
    """
    elements = read_elements(file, KEYWORDS)
    if is_video_syntax(elements.syntax):
        choose_order([], part)
        return _open_stream(path, elements, warn, deinterlace)
    header = to_header(path, elements)
    with parsing():
        header = _ordered(header, choose_order(frame_orders(elements.dataset, warn), part))
    return Video(
        frames=lambda: dicom_frames(header, warn),
        auto_range=lambda: dicom_range(header),
        header=lambda: _video_header(header),
        is_inverted=header.is_inverted,
    )


def _ordered(header: DicomHeader, order: FrameOrder | None) -> DicomHeader:
    """The header of one video of the file. The steps between frames as stored hold for no other order."""
    is_as_stored = order is None or (order.part is None and order.indices == (*range(len(order.indices)),))
    return replace(header, order=order, steps=header.steps if is_as_stored else ())


def _video_header(header: DicomHeader) -> VideoHeader:
    order, steps = header.order, header.steps
    num_frames = _num_frames(header) if order is None else len(order.indices)
    if order is not None and order.seconds:
        step = order.seconds[-1] / (len(order.seconds) - 1)
        return VideoHeader(num_frames=num_frames, seconds=order.seconds[-1] + step)
    return VideoHeader(num_frames=num_frames, seconds=_duration(num_frames, steps))


def _num_frames(header: DicomHeader) -> int | None:
    pixel_format = header.pixel_format
    if pixel_format.declares_frames:
        return pixel_format.num_frames
    with decode_errors(_WHAT):
        return num_stored_frames(header.path, pixel_format)


def _open_stream(path: Path, elements: Elements, warn: Warn, deinterlace: Deinterlace) -> Video:
    dataset = elements.dataset
    if elements.pixels is None:
        raise DecodeError(NO_PIXELS, "no-pixels")
    with parsing():
        declared = numbers(dataset, "NumberOfFrames")
        stated = int(declared[0]) if len(declared) == 1 and declared[0] >= 1 else None
        size = [int(number) for side in ("Columns", "Rows") for number in numbers(dataset, side)[:1]]
        steps = tuple(_frame_steps(dataset, stated))
        is_inverted = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    video = open_dicom_stream(path, elements.pixels, warn, deinterlace, is_timed=not steps)

    def frames() -> Iterator[Frame]:
        num_frames = 0
        for frame, seconds in zip(video.frames(), _frame_times(steps), strict=False):
            height, width = frame.pixels.shape
            if [width, height] != size:
                warn(f"its video stream has frames of {width}x{height} pixels, unlike its header")
            yield frame._replace(pts_seconds=frame.pts_seconds if seconds is None else seconds)
            num_frames += 1
        if stated is not None and num_frames != stated:
            warn(f"its video stream has {num_frames} frames, its header declares {stated}")

    return replace(
        video,
        frames=frames,
        header=lambda: VideoHeader(num_frames=stated, seconds=_duration(stated, steps)),
        is_inverted=is_inverted,
    )


def _duration(num_frames: int | None, steps: Sequence[float]) -> float | None:
    # The first entry of a vector is the time before the first frame.
    return sum(steps) if len(steps) > 1 else num_frames * steps[0] if steps and num_frames else None


def to_header(path: Path, elements: Elements) -> DicomHeader:
    """The header from the elements named KEYWORDS. Raises DecodeError."""
    dataset = elements.dataset
    with parsing():
        pixel_format = read_pixel_format(elements)
        num_frames = pixel_format.num_frames
        return DicomHeader(
            path=path,
            pixel_format=pixel_format,
            palette=_palette(dataset) if pixel_format.photometric == "PALETTE COLOR" else None,
            is_ct=text(dataset, "Modality") == "CT",
            rescales=tuple(_rescales(dataset, num_frames if pixel_format.declares_frames else None)),
            windows=tuple(_all_windows(dataset)),
            steps=tuple(_frame_steps(dataset, num_frames)),
            sample_aspect_ratio=_sample_aspect_ratio(dataset),
        )


def dicom_frames(header: DicomHeader, warn: Warn) -> Iterator[Frame]:
    """Yield the frames of a file; see `open_dicom`. Raises DecodeError."""
    frames = _frames(header, warn)
    while True:
        with decode_errors(_WHAT), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every irregularity that it handles
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def dicom_range(header: DicomHeader) -> Range | None:
    """The range of a file, see `open_dicom`. Raises DecodeError."""
    if header.palette is not None:
        return 0.0, float(np.iinfo(header.palette.luma.dtype).max)
    bits, is_signed = header.pixel_format.bits_stored, header.pixel_format.is_signed
    low = -(2.0 ** (bits - 1)) if is_signed else 0.0
    stored = low, low + 2.0**bits - 1
    if not header.is_gray:
        return stored
    if bits <= 8:
        ends = [end * slope + intercept for slope, intercept in header.rescales for end in stored]
        return min(ends), max(ends)
    if header.is_ct:
        return HOUNSFIELD_RANGE
    if not header.windows:
        return None
    lowest, highest = extent(dicom_frames(header, lambda _: None))
    return next((window for window in header.windows if window[0] < highest and window[1] > lowest), None)


def _frames(header: DicomHeader, warn: Warn) -> Iterator[Frame]:
    order = header.order
    indices = None if order is None else order.indices
    by_index = dict(zip(order.indices, order.seconds, strict=True)) if order and order.seconds else {}
    stored_in_order = stored_frames(header.path, header.pixel_format, warn, indices)
    for (index, stored), seconds in zip(stored_in_order, _frame_times(header.steps), strict=False):
        pixels = _pixels(header, index, stored)
        if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
            reason = f"values of frame {index} are too large for 32 bits once they are rescaled"
            raise DecodeError(reason, "not-finite")
        yield Frame(pixels, by_index.get(index, seconds), header.sample_aspect_ratio)


def _pixels(header: DicomHeader, index: int, stored: Pixels) -> Pixels:
    """The pixels of the frame of that index in the file."""
    if header.palette is not None:
        indices = stored.astype(np.int64) - header.palette.first
        return header.palette.luma.take(indices, mode="clip")
    if not header.is_gray:
        return to_luma(stored)
    if not header.is_rescaled:
        return to_pixel_type(stored)
    slope, intercept = header.rescales[min(index, len(header.rescales) - 1)]
    with np.errstate(over="ignore", invalid="ignore"):
        return to_pixel_type(stored.astype(np.float64) * slope + intercept)


def _palette(dataset: Dataset) -> _Palette:
    descriptor = [int(number) for number in numbers(dataset, f"{_PALETTES[0]}Descriptor")]
    if len(descriptor) != 3 or not 0 <= descriptor[0] <= 1 << 16:
        reason = "its colour palette has an invalid descriptor: expected 3 numbers, at most 65536 colours"
        raise DecodeError(reason, "unreadable")
    num_colours, first, _ = descriptor
    # 0 means 65536, which 16 bits cannot hold.
    indices = np.arange(first, first + (num_colours or 1 << 16))
    luma = to_luma(apply_color_lut(indices, dataset))
    # Many tables store 8-bit values in 16 bits.
    return _Palette(first=first, luma=luma.astype(np.uint8) if luma.max() <= 255 else luma)


def _rescales(dataset: Dataset, num_frames: int | None) -> Iterator[tuple[float, float]]:
    """Slope and intercept per frame: its own, else the shared, else the file's, else the identity."""
    shared = items(dataset, "SharedFunctionalGroupsSequence", "PixelValueTransformationSequence")
    common = _rescale([*shared, dataset], _IDENTITY)
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")[:num_frames]
    for group in groups:
        yield _rescale(items(group, "PixelValueTransformationSequence"), common)
    if num_frames is None or len(groups) < num_frames:
        yield common


def _rescale(parts: Sequence[Dataset], default: tuple[float, float]) -> tuple[float, float]:
    """The slope and intercept of the first part that has both."""
    pairs = ((numbers(part, "RescaleSlope"), numbers(part, "RescaleIntercept")) for part in parts)
    return next(((slopes[0], offsets[0]) for slopes, offsets in pairs if slopes and offsets), default)


def _all_windows(dataset: Dataset) -> Iterator[Range]:
    """Candidate windows in order of preference: the frames' own, the shared ones, the file's."""
    frames = items(dataset, "PerFrameFunctionalGroupsSequence")
    own = [[*chain(*map(_windows, items(frame, "FrameVOILUTSequence")))][:1] for frame in frames]
    if own and all(own):
        lows, highs = zip(*chain(*own), strict=True)
        yield min(lows), max(highs)
    elif own:
        yield from own[0]
    for part in (*items(dataset, "SharedFunctionalGroupsSequence", "FrameVOILUTSequence"), dataset):
        yield from _windows(part)


def _windows(dataset: Dataset) -> list[Range]:
    """The values that each window shows as black and white; LINEAR, LINEAR_EXACT of DICOM PS3.3 C.11.2.1."""
    function = text(dataset, "VOILUTFunction") or "LINEAR"
    pairs = zip(numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth"), strict=False)
    if function == "LINEAR":
        # A width of 1 is a threshold without any gray.
        return [(center - width / 2, center + width / 2 - 1) for center, width in pairs if width > 1]
    if function == "LINEAR_EXACT":
        return [(center - width / 2, center + width / 2) for center, width in pairs if width > 0]
    return []  # SIGMOID reaches neither black nor white


def _frame_times(steps: tuple[float, ...]) -> Iterator[float | None]:
    """The time of each frame, without end; the last step repeats."""
    return accumulate(chain(steps[1:], repeat(steps[-1])), initial=0.0) if steps else repeat(None)


def _frame_steps(dataset: Dataset, num_frames: int | None) -> list[float]:
    """Seconds since the previous frame, per frame or one value for all; empty where unknown."""
    vector = numbers(dataset, "FrameTimeVector")
    candidates = [
        [value / 1000 for value in numbers(dataset, "FrameTime")],
        # The first entry has no previous frame: only some files have 0 there.
        [0.0, *(value / 1000 for value in vector[1:])] if len(vector) == num_frames else [],
        [1 / rate for rate in numbers(dataset, "CineRate") if rate],
        [1 / rate for rate in numbers(dataset, "RecommendedDisplayFrameRate") if rate],
    ]
    return next((steps for steps in candidates if steps and min(steps[1:] or steps) > 0), [])


def _sample_aspect_ratio(dataset: Dataset) -> float:
    """Width over height of a pixel: PixelAspectRatio, else the shared, first frame's or file's spacing."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    groups = [*shared, *items(dataset, "PerFrameFunctionalGroupsSequence")[:1]]
    measures = [measure for group in groups for measure in items(group, "PixelMeasuresSequence")]
    spacings = [numbers(part, "PixelSpacing") for part in (*measures, dataset)]
    # DICOM gives height before width.
    pairs = (pair[::-1] for pair in (numbers(dataset, "PixelAspectRatio"), *spacings) if len(pair) == 2)
    return next(filter(None, starmap(aspect_ratio, pairs)), 1.0)
