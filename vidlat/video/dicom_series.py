"""DICOM series of single-frame files as videos: the slices of a volume, or the times of one slice.

See `dicom_order` for the order of the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from vidlat.errors import DecodeError
from vidlat.types import Frame, Range, Video, VideoHeader, Warn
from vidlat.video.dicom import KEYWORDS, DicomHeader, dicom_frames, dicom_range, to_header
from vidlat.video.dicom_elements import Elements, numbers, parsing, read_elements, text
from vidlat.video.dicom_frames import GROUPS_KEYWORDS, frame_orders
from vidlat.video.dicom_order import (
    Position,
    check_spacing,
    have_one_place,
    in_order,
    place_along_normal,
    rounded,
    since_first,
)
from vidlat.video.dicom_pixels import FORMAT_KEYWORDS, holds_several_frames, is_video_syntax

# Modalities of independent images, however many a series has.
_STILLS = ("US", "IVUS", "CR", "DX", "MG", "IO", "PX", "RG", "XC", "OP", "ES", "GM", "SM")
# Elements that order files of one position; the first with distinct values counts.
_TIMES = ("TemporalPositionIdentifier", "TriggerTime", "AcquisitionTime", "ContentTime")
_NUMBER = "InstanceNumber"
_SAME = ("Modality", "PhotometricInterpretation", "Rows", "Columns", "EchoNumbers")
_PICTURES = ("Image", "Dose", "Segmentation")  # in the names of storage classes
_KEYWORDS = [
    *("SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient"),
    *("SOPClassUID", "DirectoryRecordSequence"),
    *(*GROUPS_KEYWORDS, *FORMAT_KEYWORDS, *_SAME, *_TIMES, _NUMBER),
]


@dataclass(frozen=True, slots=True)
class Series:
    """The files of a video, in the order of its frames.

    part: the video's name where a series gives one video per slice, of its times; `z0` is the first slice.
    """

    files: tuple[Path, ...]
    part: str | None = None


class Slice(NamedTuple):
    """One file; None where it declares nothing.

    holds_pixels: an image, even a truncated one, rather than a report, plan or directory. parts: the names of
    the videos in it where it holds several. is_still: an image of one frame. group: equal for files that may
    form one video, None for a video of its own. place: position along the slice normal in mm. times: the
    values of _TIMES, with TriggerTime in milliseconds. number: InstanceNumber.
    """

    path: Path
    holds_pixels: bool
    parts: tuple[str, ...] = ()
    is_still: bool = False
    group: tuple[object, ...] | None = None
    place: float | None = None
    times: tuple[float | None, ...] = (None,) * len(_TIMES)
    number: float | None = None


def read_slice(path: Path, file: IO[bytes]) -> Slice:
    """Read what decides whether a file is a video, or a part of one. Raises DecodeError, OSError."""
    return _to_slice(path, file, read_elements(file, _KEYWORDS))


def dicom_series(slices: Iterable[Slice]) -> list[Series]:
    """Find the series among the DICOM files of one folder; other files are videos of their own.

    Single-frame files are grouped by series, size, pixel format, echo and orientation. They are ordered by
    position, and by time at one position. Without positions, InstanceNumber orders them, except for
    modalities of independent images, such as ultrasound and X-ray.
    """
    groups = defaultdict(list)
    for piece in slices:
        if piece.group is not None:
            groups[piece.group].append(piece)
    return [series for group in groups.values() for series in _to_series(group)]


def open_dicom_series(files: Sequence[Path], warn: Warn) -> Video:
    """Open single-frame files as one video, in the given order; see `open_dicom`.

    Pixels become float32 where the files' dtypes differ. The range is the union of the files' ranges. Times
    come from TriggerTime where all files have one position and it always increases. Raises DecodeError with
    the file's name, OSError.
    """
    headers, slices = [], []
    for path in files:
        with _naming(path), path.open("rb") as file:
            elements = read_elements(file, [*KEYWORDS, *_KEYWORDS])
            headers.append(to_header(path, elements))
            slices.append(_to_slice(path, file, elements))
    _refuse_changes(headers)
    types = {np.dtype(header.pixel_type) for header in headers}
    pixel_type = types.pop() if len(types) == 1 else np.dtype(np.float32)
    times = _times(slices, warn)

    def frames() -> Iterator[Frame]:
        for header, seconds in zip(headers, times, strict=True):
            frame = _one_frame(header, warn)
            yield frame._replace(pixels=frame.pixels.astype(pixel_type, copy=False), pts_seconds=seconds)

    return Video(
        frames=frames,
        auto_range=lambda: _range(headers),
        header=lambda: VideoHeader(num_frames=len(files), seconds=None),
        is_inverted=headers[0].is_inverted,
    )


def _to_slice(path: Path, file: IO[bytes], elements: Elements) -> Slice:
    dataset = elements.dataset
    with parsing():
        series, is_several = text(dataset, "SeriesInstanceUID"), holds_several_frames(file, elements)
        directions = numbers(dataset, "ImageOrientationPatient")
        place = place_along_normal(directions, numbers(dataset, "ImagePositionPatient"))
        is_still = elements.pixels is not None and not is_several
        is_alone = place is None and text(dataset, "Modality") in _STILLS
        if elements.pixels is None or not series or is_several or is_alone:
            is_ordered = is_several and not is_video_syntax(elements.syntax)
            orders = frame_orders(dataset, warn=lambda _: None) if is_ordered else []
            parts = tuple(order.part for order in orders if order.part is not None)
            return Slice(path, _holds_pixels(elements), parts, is_still)
        same = ((text(dataset, keyword), *numbers(dataset, keyword)) for keyword in _SAME)
        return Slice(
            path=path,
            holds_pixels=True,
            is_still=is_still,
            group=(series, rounded(directions), place is None, *same),
            place=place,
            times=tuple(_number(dataset, keyword) for keyword in _TIMES),
            number=_number(dataset, _NUMBER),
        )


def _holds_pixels(elements: Elements) -> bool:
    """True too for a class that is unknown or not declared: opening the file gives the reason."""
    if elements.pixels is not None or "Rows" in elements.dataset:
        return True
    sop_class = UID(text(elements.dataset, "SOPClassUID"))
    is_other = sop_class.name != sop_class and not any(kind in sop_class.name for kind in _PICTURES)
    return not (is_other or "DirectoryRecordSequence" in elements.dataset)


def _number(dataset: Dataset, keyword: str) -> float | None:
    return next(iter(numbers(dataset, keyword)), None)


def _to_series(group: Sequence[Slice]) -> Iterator[Series]:
    files = sorted(group, key=lambda piece: piece.path)
    # Without positions, only the number orders them.
    keys = [piece.times if piece.place is not None else () for piece in files]
    positions = [
        Position(piece.place, (*times, piece.number)) for piece, times in zip(files, keys, strict=True)
    ]
    for part, indices, _ in in_order(positions):
        if len(indices) > 1:
            yield Series(tuple(files[index].path for index in indices), part)


def _times(slices: Sequence[Slice], warn: Warn) -> Sequence[float | None]:
    """Seconds since the first file, where all have one position; warns of uneven spacing."""
    places = [piece.place for piece in slices if piece.place is not None]
    nothing = [None for _ in slices]
    if len(places) < len(slices):
        return nothing
    if not have_one_place(places):
        check_spacing(places, warn)
        return nothing
    triggers = since_first([piece.times[_TIMES.index("TriggerTime")] for piece in slices])
    return nothing if triggers is None else [trigger / 1000 for trigger in triggers]


def _refuse_changes(headers: Sequence[DicomHeader]) -> None:
    first = headers[0]
    for header in headers:
        sizes = [f"{one.pixel_format.columns}x{one.pixel_format.rows}" for one in (header, first)]
        name = repr(header.path.name)
        if sizes[0] != sizes[1]:
            reason = f"{name} has {sizes[0]} pixels; expected {sizes[1]} as in the files before it"
            raise DecodeError(reason, "size-change")
        if header.is_inverted != first.is_inverted:
            found, expected = header.pixel_format.photometric, first.pixel_format.photometric
            reason = f"{name} is {found}; expected {expected} as in the files before it"
            raise DecodeError(reason, "type-change")


def _one_frame(header: DicomHeader, warn: Warn) -> Frame:
    with _naming(header.path):
        frames = list(islice(dicom_frames(header, warn), 2))
        if len(frames) > 1:
            raise DecodeError("several frames; expected one per file of a series", "several-frames")
        return frames[0]


def _range(headers: Sequence[DicomHeader]) -> Range | None:
    ranges = []
    for header in headers:
        with _naming(header.path):
            ranges.append(dicom_range(header))
    stated = [one for one in ranges if one is not None]
    return (min(low for low, _ in stated), max(high for _, high in stated)) if stated else None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Prefix errors with the file's name, without its folders."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(f"{path.name!r}: {error}", error.kind) from error
