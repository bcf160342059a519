"""The order of DICOM images, which are files of a series or frames of a file: by position, then by time.

Slices are ordered as in `nifti`, along the closest patient axis: feet to head, back to front, left to right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np

from vidlat.types import Warn

_SAME_PLACE_MM = 0.01
_TOWARDS = np.array([-1.0, -1.0, 1.0])  # towards the patient's right, front and head, in DICOM's axes


class Position(NamedTuple):
    """Where and when an image was taken.

    place: along the slice normal in mm, or a number of the slice; None where unknown. keys: what orders
    images of one place; the first key that is distinct for all of them counts.
    """

    place: float | None
    keys: tuple[float | None, ...]


class Ordered(NamedTuple):
    """A video of some of the images: their indices in order.

    part: its name where there is one video per slice, of its times; `z0` is the first slice. is_volume: its
    frames are slices, not times.
    """

    part: str | None
    indices: tuple[int, ...]
    is_volume: bool


def in_order(positions: Sequence[Position]) -> list[Ordered]:
    """The videos that images of one orientation are: the slices of a volume, or the times of every slice.

    All images have a place, or none. Images that nothing orders are in no video.
    """
    is_placed = positions[0].place is not None
    slices = [*_by_place(positions)] if is_placed else [[*range(len(positions))]]
    by_time = [_by_key(positions, indices) for indices in slices]
    is_volume = len(slices) > 1 and median(map(len, slices)) == 1
    if is_volume:
        # A few duplicate positions do not make a series over time.
        volume = [ordered or indices for ordered, indices in zip(by_time, slices, strict=True)]
        by_time = [tuple(index for indices in volume for index in indices)]
    parts = part_names("z", len(by_time)) if len(by_time) > 1 else [None]
    return [
        Ordered(part, indices, is_volume)
        for part, indices in zip(parts, by_time, strict=True)
        if indices is not None
    ]


def part_names(letter: str, num_parts: int) -> list[str | None]:
    """Names of the parts of a file or series, of equal length."""
    width = len(str(num_parts - 1))
    return [f"{letter}{index:0{width}}" for index in range(num_parts)]


def rounded(orientation: Sequence[float]) -> tuple[float, ...]:
    """An orientation without its last digits, which vary between slices."""
    return tuple(round(number, 2) for number in orientation)


def place_along_normal(orientation: Sequence[float], position: Sequence[float]) -> float | None:
    """The place of a slice from its row and column directions and its corner; None where they are invalid."""
    if len(orientation) != 6 or len(position) != 3:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    axis = int(np.abs(normal).argmax())
    length = float(np.linalg.norm(normal)) * np.sign(normal[axis] * _TOWARDS[axis])
    return float(position @ normal / length) if length else None


def have_one_place(places: Sequence[float]) -> bool:
    """Whether neighbours are at the same place throughout."""
    return all(abs(after - before) <= _SAME_PLACE_MM for before, after in pairwise(places))


def check_spacing(places: Sequence[float], warn: Warn) -> None:
    """Warn of slices that are not equally far apart."""
    gaps = [abs(after - before) for before, after in pairwise(places)]
    if gaps and max(gaps) > 1.1 * min(gaps) + 2 * _SAME_PLACE_MM:
        warn(f"slices are unevenly spaced: gaps from {min(gaps):.4g} to {max(gaps):.4g} mm")


def since_first(stated: Sequence[float | None]) -> list[float] | None:
    """Times from the first on; None unless there are several, all stated, and each is later than the last."""
    times = [time for time in stated if time is not None]
    if len(times) < max(2, len(stated)) or any(after <= before for before, after in pairwise(times)):
        return None
    return [time - times[0] for time in times]


def distinct_key(positions: Sequence[Position]) -> int | None:
    """Index of the first key that is distinct for all images; None where there is none."""
    for index, values in enumerate(zip(*(position.keys for position in positions), strict=True)):
        if len({value for value in values if value is not None}) == len(positions):
            return index
    return None


def _by_place(positions: Sequence[Position]) -> Iterator[list[int]]:
    """The images of each place, in the order of the places."""
    order = sorted((position.place or 0.0, index) for index, position in enumerate(positions))
    indices = [order[0][1]]
    for (before, _), (place, index) in pairwise(order):
        if place - before > _SAME_PLACE_MM:
            yield indices
            indices = []
        indices.append(index)
    yield indices


def _by_key(positions: Sequence[Position], indices: Sequence[int]) -> tuple[int, ...] | None:
    key = distinct_key([positions[index] for index in indices])
    if key is None:
        return None
    return tuple(sorted(indices, key=lambda index: positions[index].keys[key] or 0.0))
