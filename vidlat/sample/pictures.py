"""Pictures of samples: a contact sheet, and of a sweep a grid, with a row a value and a column a seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vidlat.config.sample import MAX_SWEPT
from vidlat.sample.folder import Sample
from vidlat.video.contact_sheet import Row, contact_sheet
from vidlat.video.display_window import window_of_all
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import prepare_folder, write_png, write_video

Frames = npt.NDArray[np.uint8]

CONTACT_SHEET = "contact_sheet.png"
"""File name of the contact sheet of one call."""

MAX_ROWS = 32
"""Samples on a contact sheet, at most: the first ones."""

MOVING, STILL = Path("sweep", "grid.mp4"), Path("sweep", "grid.png")
"""Files of a grid in the folder of samples, below which they are no samples."""

MAX_COLUMNS = 8
"""Seeds in a grid, at most: the lowest ones."""


class Picture(Protocol):
    """Shows samples that come in any order."""

    def shows(self, name: str) -> bool:
        """Whether a sample of this file name has a place in the picture."""

    def add(self, name: str, frames: Frames) -> None:
        """Add a sample by its file name, with its frames (T, H, W), if the picture shows it."""

    def write(self, out: Path) -> None:
        """Write what there is to the folder of the samples; raises InputError where it cannot be written."""


class Sheet:
    """A contact sheet of the first MAX_ROWS samples.

    samples: all of them, by file name. frame_step: from one border of stacks to the next.
    """

    def __init__(self, samples: Mapping[str, Sample], title: str, frame_step: int) -> None:
        self._title, self._frame_step = title, frame_step
        self._labels = {
            name: ", ".join([f"seed {sample.seed}", *sample.condition]) for name, sample in samples.items()
        }
        self._places = {name: place for place, name in enumerate(samples)}
        self._rows: dict[int, Row] = {}

    def shows(self, name: str) -> bool:
        return self._places[name] < MAX_ROWS

    def add(self, name: str, frames: Frames) -> None:
        if self.shows(name):
            self._rows[self._places[name]] = Row(self._labels[name], frames, frame_step=self._frame_step)

    def write(self, out: Path) -> None:
        if self._rows:
            rows = [self._rows[place] for place in sorted(self._rows)]
            contact_sheet(rows, out / CONTACT_SHEET, title=self._title)


def in_sweep_order(wanted: Mapping[str, Sample], held: Mapping[str, Sample], swept: str) -> dict[str, Sample]:
    """The samples with the condition `swept`, by file name: value after value, each by seeds.

    Values of `wanted` come first, in their order; then those of `held` alone, numbers by size before others.
    """
    of_sweep = {name: sample for name, sample in {**held, **wanted}.items() if swept in sample.labels}
    given = dict.fromkeys(sample.labels[swept] for sample in wanted.values())
    others = sorted({sample.labels[swept] for sample in of_sweep.values()} - given.keys(), key=_order)
    places = {value: place for place, value in enumerate([*given, *others])}
    return dict(sorted(of_sweep.items(), key=lambda item: (places[item[1].labels[swept]], item[1].seed)))


def _order(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return np.inf, value


class SweepGrid:
    """The samples of a sweep side by side, moving, and their middle frames; a missing one is black.

    One window of gray levels shows all. samples: all of them, by file name, value after value; the first
    MAX_SWEPT values are shown. swept: the condition. fps: of the moving grid.
    """

    def __init__(self, samples: Mapping[str, Sample], swept: str, fps: float) -> None:
        seeds = sorted({sample.seed for sample in samples.values()})[:MAX_COLUMNS]
        values = list(dict.fromkeys(sample.labels[swept] for sample in samples.values()))[:MAX_SWEPT]
        self._num_columns, self._fps = len(seeds), fps
        names = {(sample.labels[swept], sample.seed): name for name, sample in samples.items()}
        self._names = {
            f"{swept}={value}, seed {seed}": names.get((value, seed)) for value in values for seed in seeds
        }
        self._frames: dict[str, Frames] = {}

    def shows(self, name: str) -> bool:
        return name in self._names.values()

    def add(self, name: str, frames: Frames) -> None:
        if self.shows(name):
            self._frames[name] = frames

    def write(self, out: Path) -> None:
        if not self._frames:
            return
        black = np.zeros_like(next(iter(self._frames.values())))
        videos = {label: self._frames.get(name or "", black) for label, name in self._names.items()}
        middle = {label: frames[len(frames) // 2, None] for label, frames in videos.items()}
        prepare_folder((out / MOVING).parent)
        window = window_of_all(self._frames.values())
        write_video(out / MOVING, side_by_side(videos, self._num_columns, window=window), self._fps)
        (still,) = side_by_side(middle, self._num_columns, window=window)
        write_png(out / STILL, still)
