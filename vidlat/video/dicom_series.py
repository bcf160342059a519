"""Files of one DICOM series, a frame each, that make a video: slices through a body, or times of one slice.

Slices run as in `nifti`, by the closest of the patient's axes: from feet to head, from back to front, from
left to right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from pydicom import Dataset

from vidlat.errors import DecodeError
from vidlat.types import Frame, Range, Video, VideoHeader, Warn
from vidlat.video.dicom import DicomHeader, dicom_frames, dicom_range, read_dicom_header
from vidlat.video.dicom_elements import numbers, opened_dicom, parsing, read_elements, text
from vidlat.video.untrusted import warn_once

# Pictures for themselves, however many of them a series has.
_STILLS = ("US", "IVUS", "CR", "DX", "MG", "IO", "PX", "RG", "XC", "OP", "ES", "GM", "SM")
# What tells the order of files of one place, the first that tells them all apart.
_TIMES = ("TemporalPositionIdentifier", "TriggerTime", "AcquisitionTime", "ContentTime")
_NUMBER = "InstanceNumber"
_SAME = ("Modality", "PhotometricInterpretation", "Rows", "Columns", "EchoNumbers")
_KEYWORDS = [
    *("SeriesInstanceUID", "NumberOfFrames", "ImageOrientationPatient", "ImagePositionPatient"),
    *(*_SAME, *_TIMES, _NUMBER),
]
_SAME_PLACE_MM = 0.01
_TOWARDS = np.array([-1.0, -1.0, 1.0])  # the patient's right, front and head in DICOM's axes
_Group = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Files that make a video, in the order of its frames.

    part: the name of the video where the series gives several: one a slice, of its times; `z0` is the first.
    """

    files: tuple[Path, ...]
    part: str | None = None


class _Slice(NamedTuple):
    """One file. place: along the slices' normal in mm, None where the file does not say.

    group: equal for files that may make a video together. times: values of _TIMES, milliseconds of
    TriggerTime among them; number: that of the instance. None where not stated.
    """

    path: Path
    group: _Group
    place: float | None
    times: tuple[float | None, ...]
    number: float | None

    @property
    def trigger_ms(self) -> float | None:
        return self.times[_TIMES.index("TriggerTime")]


def dicom_series(files: Sequence[Path]) -> list[Series]:
    """The series among DICOM files of one folder; what is in none is a video by itself, or unreadable.

    Files of one frame belong together by series, size, kind of pixels, echo and orientation. Where they
    state positions these order them, several at one position go by time; where they state none, their
    numbers order them, unless they are of a modality that takes single pictures, as ultrasound and X-ray do.
    """
    groups = defaultdict(list)
    for path in files:
        try:
            piece = _read_slice(path)
        except (DecodeError, OSError):
            continue  # a video by itself, whose encode will say why
        if piece is not None:
            groups[piece.group].append(piece)
    return [series for group in groups.values() for series in _to_series(group)]


def open_dicom_series(files: Sequence[Path], warn: Warn) -> Video:
    """Open files of one frame each as a video, its frames in the order given; see `open_dicom`.

    Pixels become float32 where the files differ in type. The range is the union of the files' own. Times
    come from TriggerTime where all files have one position and it always rises. Raises DecodeError, which
    names the file, and OSError.
    """
    tell = warn_once(warn)
    headers = [_read_header(path) for path in files]
    _refuse_changes(headers)
    types = {np.dtype(header.pixel_type) for header in headers}
    pixel_type = types.pop() if len(types) == 1 else np.dtype(np.float32)
    times = _times(files, tell)

    def frames() -> Iterator[Frame]:
        for header, seconds in zip(headers, times, strict=True):
            frame = _one_frame(header, tell)
            yield frame._replace(pixels=frame.pixels.astype(pixel_type, copy=False), pts_seconds=seconds)

    return Video(
        frames=frames,
        auto_range=lambda: _range(headers),
        header=lambda: VideoHeader(num_frames=len(files), seconds=None),
        is_inverted=headers[0].is_inverted,
    )


def _read_slice(path: Path) -> _Slice | None:
    """What tells where a file belongs; None for one that holds several frames, no pixels or no series."""
    with opened_dicom(path) as (file, syntax):
        dataset, element = read_elements(file, syntax, _KEYWORDS)
    with parsing():
        series, num_frames = text(dataset, "SeriesInstanceUID"), numbers(dataset, "NumberOfFrames")
        if element is None or not series or max(num_frames, default=1) > 1:
            return None
        orientation, place = _orientation_and_place(dataset)
        if place is None and text(dataset, "Modality") in _STILLS:
            return None
        same = ((text(dataset, keyword), *numbers(dataset, keyword)) for keyword in _SAME)
        return _Slice(
            path=path,
            group=(series, orientation, place is None, *same),
            place=place,
            times=tuple(_number(dataset, keyword) for keyword in _TIMES),
            number=_number(dataset, _NUMBER),
        )


def _number(dataset: Dataset, keyword: str) -> float | None:
    return next(iter(numbers(dataset, keyword)), None)


def _orientation_and_place(dataset: Dataset) -> tuple[tuple[float, ...], float | None]:
    # Rounded, as the last digits differ from slice to slice.
    orientation = tuple(round(number, 2) for number in numbers(dataset, "ImageOrientationPatient"))
    position = numbers(dataset, "ImagePositionPatient")
    if len(orientation) != 6 or len(position) != 3:
        return orientation, None
    normal = np.cross(orientation[:3], orientation[3:])
    axis = int(np.abs(normal).argmax())
    length = float(np.linalg.norm(normal)) * np.sign(normal[axis] * _TOWARDS[axis])
    return orientation, float(position @ normal / length) if length else None


def _to_series(group: Sequence[_Slice]) -> Iterator[Series]:
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
        # One that is there twice makes no videos of times.
        named = (sorted(piece.path for piece in pieces) for pieces in slices)
        stack = [files or names for files, names in zip(videos, named, strict=True)]
        videos, parts = [tuple(path for files in stack for path in files)], [None]
    for files, part in zip(videos, parts, strict=True):
        if files is not None and len(files) > 1:
            yield Series(files, part)


def _by_place(group: Sequence[_Slice]) -> Iterator[list[_Slice]]:
    """The files of every position, in the order of the positions."""
    in_order = sorted((piece.place or 0.0, index) for index, piece in enumerate(group))
    pieces = [group[in_order[0][1]]]
    for (before, _), (place, index) in pairwise(in_order):
        if place - before > _SAME_PLACE_MM:
            yield pieces
            pieces = []
        pieces.append(group[index])
    yield pieces


def _in_order(pieces: Sequence[_Slice], keys: Sequence[tuple[float | None, ...]]) -> tuple[Path, ...] | None:
    """The files by the first of their keys that tells all apart; None where none does."""
    for values in zip(*keys, strict=True):
        stated = {value for value in values if value is not None}
        if len(stated) == len(pieces):
            in_order = sorted(zip(values, (piece.path for piece in pieces), strict=True))
            return tuple(path for _, path in in_order)
    return None


def _times(files: Sequence[Path], warn: Warn) -> list[float | None]:
    """Seconds since the first file, where all are of one position; warns where positions are uneven."""
    nothing: list[float | None] = [None for _ in files]
    pieces = [_read_slice(path) for path in files]
    places = [piece.place for piece in pieces if piece is not None and piece.place is not None]
    triggers = [piece.trigger_ms for piece in pieces if piece is not None and piece.trigger_ms is not None]
    if len(places) < len(files) or len(files) < 2:
        return nothing
    gaps = [abs(after - before) for before, after in pairwise(places)]
    if max(gaps) > _SAME_PLACE_MM:
        if max(gaps) > 1.1 * min(gaps) + 2 * _SAME_PLACE_MM:
            warn(f"slices are unevenly spaced: gaps from {min(gaps):.4g} to {max(gaps):.4g} mm")
        return nothing
    if len(triggers) < len(files) or any(after <= before for before, after in pairwise(triggers)):
        return nothing
    return [(trigger - triggers[0]) / 1000 for trigger in triggers]


def _read_header(path: Path) -> DicomHeader:
    with _naming(path):
        return read_dicom_header(path)


def _refuse_changes(headers: Sequence[DicomHeader]) -> None:
    first = headers[0]
    for header in headers:
        sizes = [f"{one.pixel_format.columns}x{one.pixel_format.rows}" for one in (header, first)]
        name = repr(header.path.name)
        if sizes[0] != sizes[1]:
            reason = f"{name} has {sizes[0]} pixels, those before {sizes[1]}: expected one size"
            raise DecodeError(reason, "size-change")
        if header.is_inverted != first.is_inverted:
            reason = (
                f"{name} is {header.pixel_format.photometric}, those before {first.pixel_format.photometric}"
            )
            raise DecodeError(f"{reason}: expected one kind of pixels", "type-change")


def _one_frame(header: DicomHeader, warn: Warn) -> Frame:
    with _naming(header.path):
        frames = list(islice(dicom_frames(header, warn), 2))
        if len(frames) > 1:
            raise DecodeError("has several frames: a series has one a file", "several-frames")
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
    """Every error names the file, without its folders."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(f"{path.name!r}: {error}", error.kind) from error
