"""The frames of a multi-frame DICOM file as videos, by its functional groups, or vectors in nuclear medicine.

They are grouped and ordered as the files of a series are; see `dicom_order`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from statistics import median
from typing import NamedTuple

from pydicom import Dataset
from pydicom.tag import Tag

from vidlat.errors import DecodeError
from vidlat.types import Warn
from vidlat.video.dicom_elements import items, numbers, text
from vidlat.video.dicom_order import (
    Ordered,
    Position,
    check_spacing,
    distinct_key,
    in_order,
    part_names,
    place_along_normal,
    rounded,
    since_first,
)

# Vectors of a number per frame, in nuclear medicine: of kinds of images, and of times from slow to fast.
_KIND_VECTORS = ("EnergyWindowVector", "DetectorVector", "RRIntervalVector")
_TIME_VECTORS = ("RotationVector", "PhaseVector", "TimeSlotVector", "TimeSliceVector", "AngularViewVector")

GROUPS_KEYWORDS = (
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence"),
    *("SliceVector", *_KIND_VECTORS, *_TIME_VECTORS),
)
"""The elements that `frame_orders` needs, besides NumberOfFrames."""

# What orders the frames of one slice, by sequence: the first with distinct values counts.
_TIMES = (
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ("FrameContentSequence", "FrameReferenceDateTime"),
    ("FrameContentSequence", "FrameAcquisitionDateTime"),
)
_TRIGGER, _OFFSET = 1, 2  # of these, in milliseconds and in seconds
_TIME_DIMENSIONS = {Tag(keyword) for _, keyword in _TIMES}
_SPACE_DIMENSIONS = {
    Tag(keyword) for keyword in ("ImagePositionPatient", "InStackPositionNumber", "ImagePositionVolume")
}


class FrameOrder(NamedTuple):
    """A video of a file.

    part: its name where the file holds several; indices: of its frames in the file, in order. seconds: their
    times since the first, None where unknown. is_volume: the frames are slices, not times.
    """

    part: str | None
    indices: tuple[int, ...]
    seconds: tuple[float, ...] | None
    is_volume: bool


class _Facts(NamedTuple):
    """What the functional groups tell of a frame.

    places: along the slice normal in mm, in its stack, by dimension index; None where not stated. times: as
    in _TIMES, then by dimension index. index_values: all dimension indices. others: those beyond place and
    time, and the echo time.
    """

    orientation: tuple[float, ...]
    stack: str
    places: tuple[float | None, float | None, float | None]
    times: tuple[float | None, ...]
    index_values: tuple[float, ...]
    others: tuple[float, ...]


def frame_orders(dataset: Dataset, warn: Warn) -> list[FrameOrder]:
    """The videos of a file; empty where nothing orders its frames, so that they are one video as stored.

    Frames of another orientation, stack, echo or further dimension (such as diffusion) are videos of their
    own. Names are `z0` for the first slice, `s0` for the first such group, `s0/z0` for both.
    """
    facts = _read_facts(dataset) or _read_vectors(dataset)
    declared = numbers(dataset, "NumberOfFrames")
    if declared and facts and declared[0] != len(facts):
        warn(
            f"describes the order of {len(facts)} frames, its header declares {declared[0]:g}: frames are in "
            "the order of the file"
        )
        return []
    if not facts:
        return []
    places = _places(facts)
    if places is None:
        warn("only some of its frames state their position: frames are in the order of the file")
        return []
    members = _grouped(facts)
    if members is None:  # every frame has another orientation: a place along it compares with no other
        members, places = [[*range(len(facts))]], [None] * len(facts)
    ranks = _ranks(facts)
    positions = [
        Position(places[index], (*facts[index].times, ranks[index], index)) for index in range(len(facts))
    ]
    is_in_mm = all(frame.places[0] is not None for frame in facts)
    orders = []
    for name, indices in zip(part_names("s", len(members)), members, strict=True):
        for video in in_order([positions[index] for index in indices]):
            parts = [part for part in (name if len(members) > 1 else None, video.part) if part]
            chosen = tuple(indices[index] for index in video.indices)
            orders.append(_to_order("/".join(parts) or None, chosen, video, positions, warn, is_in_mm))
    return orders


def choose_order(orders: Sequence[FrameOrder], part: str | None) -> FrameOrder | None:
    """The video of that name, None for the frames as stored. Raises DecodeError where there is none."""
    if part is None and len(orders) < 2:
        return orders[0] if orders else None
    parts = [order.part for order in orders]
    if part in parts and part is not None:
        return orders[parts.index(part)]
    there = f"{len(parts)} videos, {parts[0]} to {parts[-1]}" if len(parts) > 1 else "a single video"
    if part is None:
        raise DecodeError(f"holds {there}, by slice or kind of image: name one of them", "ambiguous-axes")
    raise DecodeError(f"no video {part!r} in the file; it holds {there}", "no-part")


def _read_facts(dataset: Dataset) -> list[_Facts]:
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    pointers = [numbers(item, "DimensionIndexPointer") for item in items(dataset, "DimensionIndexSequence")]
    dimensions = [int(pointer[0]) if pointer else 0 for pointer in pointers]
    return [_facts([group, *shared], dimensions) for group in groups]


def _read_vectors(dataset: Dataset) -> list[_Facts]:
    """The same by vectors; as many as the shortest of them describes."""
    vectors = {
        keyword: values
        for keyword in ("SliceVector", *_KIND_VECTORS, *_TIME_VECTORS)
        if (values := numbers(dataset, keyword))
    }
    frames = [dict(zip(vectors, values, strict=True)) for values in zip(*vectors.values(), strict=False)]
    return [
        _Facts(
            orientation=(),
            stack="",
            places=(None, frame.get("SliceVector"), None),
            times=(None,) * (len(_TIMES) + 1),
            index_values=tuple(frame[keyword] for keyword in _TIME_VECTORS if keyword in frame),
            others=tuple(frame[keyword] for keyword in _KIND_VECTORS if keyword in frame),
        )
        for frame in frames
    ]


def _facts(groups: Sequence[Dataset], dimensions: Sequence[int]) -> _Facts:
    """groups: those of the frame, then the shared ones."""

    def first(sequence: str, keyword: str) -> list[float]:
        parts = chain.from_iterable(items(group, sequence) for group in groups)
        return next(filter(None, (numbers(part, keyword) for part in parts)), [])

    def number(sequence: str, keyword: str) -> float | None:
        return next(iter(first(sequence, keyword)), None)

    orientation = first("PlaneOrientationSequence", "ImageOrientationPatient")
    index_values = first("FrameContentSequence", "DimensionIndexValues")
    is_indexed = len(dimensions) == len(index_values)
    by_dimension = dict(zip(dimensions, index_values, strict=True)) if is_indexed else {}
    stacks = (text(part, "StackID") for group in groups for part in items(group, "FrameContentSequence"))
    return _Facts(
        orientation=rounded(orientation),
        stack=next(stacks, ""),
        places=(
            place_along_normal(orientation, first("PlanePositionSequence", "ImagePositionPatient")),
            number("FrameContentSequence", "InStackPositionNumber"),
            next((value for tag, value in by_dimension.items() if tag in _SPACE_DIMENSIONS), None),
        ),
        times=(
            *(number(*time) for time in _TIMES),
            next((value for tag, value in by_dimension.items() if tag in _TIME_DIMENSIONS), None),
        ),
        index_values=tuple(index_values),
        others=(
            *(
                value
                for tag, value in by_dimension.items()
                if tag not in _TIME_DIMENSIONS | _SPACE_DIMENSIONS
            ),
            *first("MREchoSequence", "EffectiveEchoTime"),
        ),
    )


def _places(facts: Sequence[_Facts]) -> list[float | None] | None:
    """The place of every frame by what all of them state, else None for each; None if only some state one."""
    kinds = [*zip(*(frame.places for frame in facts), strict=True)]
    for places in kinds:
        if None not in places:
            return [*places]
    is_partial = any(place is not None for places in kinds for place in places)
    return None if is_partial else [None] * len(facts)


def _grouped(facts: Sequence[_Facts]) -> list[list[int]] | None:
    """The frames that may form one video; None where each would be alone."""
    keys = (
        [(frame.stack, frame.orientation, frame.others) for frame in facts],
        [(frame.stack, frame.orientation) for frame in facts],
    )
    for key in keys:
        groups = defaultdict(list)
        for index, value in enumerate(key):
            groups[value].append(index)
        if len(groups) == 1 or median(map(len, groups.values())) > 1:
            return [*groups.values()]
    return None


def _ranks(facts: Sequence[_Facts]) -> list[float | None]:
    """The order of the dimension indices, of which the first varies most slowly."""
    ranks = {values: rank for rank, values in enumerate(sorted({frame.index_values for frame in facts}))}
    return [float(ranks[frame.index_values]) if frame.index_values else None for frame in facts]


def _to_order(
    part: str | None,
    indices: tuple[int, ...],
    video: Ordered,
    positions: Sequence[Position],
    warn: Warn,
    is_in_mm: bool,
) -> FrameOrder:
    chosen = [positions[index] for index in indices]
    seconds = None
    if video.is_volume:
        if is_in_mm:
            check_spacing([position.place or 0.0 for position in chosen], warn)
    else:
        key = distinct_key(chosen)
        stated = [
            sum(value is not None for value in values)
            for values in zip(*(one.keys for one in chosen), strict=True)
        ]
        if key == len(stated) - 1 and any(0 < number < len(chosen) for number in stated):
            warn("only some of its frames state their time: they are in the order of the file")
        triggers = since_first([position.keys[_TRIGGER] for position in chosen])
        offsets = since_first([position.keys[_OFFSET] for position in chosen])
        seconds = [trigger / 1000 for trigger in triggers] if triggers else offsets
    return FrameOrder(part, indices, tuple(seconds) if seconds else None, video.is_volume)
