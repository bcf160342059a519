"""DICOM series of single-frame files as videos: the slices of a volume, or the times of one slice.

Slices are ordered as in `nifti`, along the closest patient axis: feet to head, back to front, left to right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import IO, NamedTuple

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from vidlat.errors import DecodeError
from vidlat.types import Frame, Range, Video, VideoHeader, Warn
from vidlat.video.dicom import KEYWORDS, DicomHeader, dicom_frames, dicom_range, to_header
from vidlat.video.dicom_elements import Elements, numbers, parsing, read_elements, text
from vidlat.video.dicom_pixels import FORMAT_KEYWORDS, holds_several_frames

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
    *(*FORMAT_KEYWORDS, *_SAME, *_TIMES, _NUMBER),
]
_SAME_PLACE_MM = 0.01
_TOWARDS = np.array([-1.0, -1.0, 1.0])  # towards the patient's right, front and head, in DICOM's axes


@dataclass(frozen=True, slots=True)
class Series:
    """The files of a video, in the order of its frames.

    part: the video's name where a series gives one video per slice, of its times; `z0` is the first slice.
    """

    files: tuple[Path, ...]
    part: str | None = None


class Slice(NamedTuple):
    """One file; None where it declares nothing.

    holds_pixels: an image, even a truncated one, rather than a report, plan or directory. group: equal for
    files that may form one video, None for a video of its own. place: position along the slice normal in mm.
    times: the values of _TIMES, with TriggerTime in milliseconds. number: InstanceNumber.
    """

    path: Path
    holds_pixels: bool
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
        orientation, place = _orientation_and_place(dataset)
        is_still = place is None and text(dataset, "Modality") in _STILLS
        if elements.pixels is None or not series or is_several or is_still:
            return Slice(path, _holds_pixels(elements))
        same = ((text(dataset, keyword), *numbers(dataset, keyword)) for keyword in _SAME)
        return Slice(
            path=path,
            holds_pixels=True,
            group=(series, orientation, place is None, *same),
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


def _orientation_and_place(dataset: Dataset) -> tuple[tuple[float, ...], float | None]:
    # Rounded, because the last digits vary between slices.
    orientation = tuple(round(number, 2) for number in numbers(dataset, "ImageOrientationPatient"))
    position = numbers(dataset, "ImagePositionPatient")
    if len(orientation) != 6 or len(position) != 3:
        return orientation, None
    normal = np.cross(orientation[:3], orientation[3:])
    axis = int(np.abs(normal).argmax())
    length = float(np.linalg.norm(normal)) * np.sign(normal[axis] * _TOWARDS[axis])
    return orientation, float(position @ normal / length) if length else None


def _to_series(group: Sequence[Slice]) -> Iterator[Series]:
    if len(group) < 2:
        return
    if group[0].place is None:
        in_order = _in_order(group, [(piece.number,) for piece in group])
        if in_order is not None:
            yield Series(in_order)
        return
    slices = [*_by_place(group)]
    videos = [_in_order(pieces, [(*piece.times, piece.number) for piece in pieces]) for pieces in slices]
    if len(slices) == 1:
        parts: list[str | None] = [None]
    elif median(map(len, slices)) > 1:
        width = len(str(len(slices) - 1))
        parts = [f"z{index:0{width}}" for index in range(len(slices))]
    else:
        # A few duplicate positions do not make a series over time.
        named = (sorted(piece.path for piece in pieces) for pieces in slices)
        stack = [files or names for files, names in zip(videos, named, strict=True)]
        videos, parts = [tuple(path for files in stack for path in files)], [None]
    for files, part in zip(videos, parts, strict=True):
        if files is not None and len(files) > 1:
            yield Series(files, part)


def _by_place(group: Sequence[Slice]) -> Iterator[list[Slice]]:
    """The files per position, in the order of the positions."""
    in_order = sorted((piece.place or 0.0, index) for index, piece in enumerate(group))
    pieces = [group[in_order[0][1]]]
    for (before, _), (place, index) in pairwise(in_order):
        if place - before > _SAME_PLACE_MM:
            yield pieces
            pieces = []
        pieces.append(group[index])
    yield pieces


def _in_order(pieces: Sequence[Slice], keys: Sequence[tuple[float | None, ...]]) -> tuple[Path, ...] | None:
    """The files sorted by the first key that is distinct for all; None where there is none."""
    for values in zip(*keys, strict=True):
        stated = {value for value in values if value is not None}
        if len(stated) == len(pieces):
            in_order = sorted(zip(values, (piece.path for piece in pieces), strict=True))
            return tuple(path for _, path in in_order)
    return None


def _times(slices: Sequence[Slice], warn: Warn) -> list[float | None]:
    """Seconds since the first file, where all have one position; warns of uneven spacing."""
    nothing: list[float | None] = [None for _ in slices]
    places = [piece.place for piece in slices if piece.place is not None]
    if len(places) < len(slices) or len(slices) < 2:
        return nothing
    gaps = [abs(after - before) for before, after in pairwise(places)]
    if max(gaps) > _SAME_PLACE_MM:
        if max(gaps) > 1.1 * min(gaps) + 2 * _SAME_PLACE_MM:
            warn(f"slices are unevenly spaced: gaps from {min(gaps):.4g} to {max(gaps):.4g} mm")
        return nothing
    stated = [piece.times[_TIMES.index("TriggerTime")] for piece in slices]
    triggers = [trigger for trigger in stated if trigger is not None]
    if len(triggers) < len(slices) or any(after <= before for before, after in pairwise(triggers)):
        return nothing
    return [(trigger - triggers[0]) / 1000 for trigger in triggers]


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
