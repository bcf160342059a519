"""How much of a video's motion a reconstruction keeps: its change from frame to frame against the source's.

A change is the difference of two neighbouring frames, pixel by pixel. Changes between the last frame of a
stack and the first of the next, at the borders of VAE calls, are told apart from those inside a stack.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]

FROZEN_BELOW = 0.1
"""A stack that keeps less than this share of its motion's energy looks like one frame, shown for as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Sums over the pixels of some changes: squares of the source's and of the copy's, and their products.

    error: squares of the differences of the two. num_values: how many pixels were summed.
    """

    source: float = 0.0
    copy: float = 0.0
    product: float = 0.0
    error: float = 0.0
    num_values: int = 0

    @classmethod
    def between(cls, source: Array, copy: Array) -> Changes:
        """The sums of changes (N, H, W) of the source and of the copy, in [-1, 1]."""
        return cls(
            source=float(np.square(source).sum()),
            copy=float(np.square(copy).sum()),
            product=float((source * copy).sum()),
            error=float(np.square(source - copy).sum()),
            num_values=source.size,
        )

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            source=self.source + other.source,
            copy=self.copy + other.copy,
            product=self.product + other.product,
            error=self.error + other.error,
            num_values=self.num_values + other.num_values,
        )

    @property
    def energy(self) -> float | None:
        """Energy of the copy's changes over that of the source's; None where the source does not change."""
        return self.copy / self.source if self.source else None

    @property
    def correlation(self) -> float | None:
        """Of the changes of both, not centred; 0 for a still copy, None for a still source."""
        if not self.source:
            return None
        return self.product / math.sqrt(self.source * self.copy) if self.copy else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """Energy ratio and correlation of changes inside stacks, at their borders, and of all.

    seam: mean squared error of the changes at borders over that inside. A figure is None where it is
    undefined: the source does not change there, or there are no such pairs of frames.
    """

    energy: float | None
    energy_inside: float | None
    energy_at_borders: float | None
    correlation: float | None
    correlation_inside: float | None
    correlation_at_borders: float | None
    seam: float | None

    @classmethod
    def of(cls, inside: Changes, at_borders: Changes) -> Motion:
        """The figures of two sums, of one video or of many."""
        every = inside + at_borders
        is_defined = bool(inside.error and at_borders.num_values)
        return cls(
            energy=every.energy,
            energy_inside=inside.energy,
            energy_at_borders=at_borders.energy,
            correlation=every.correlation,
            correlation_inside=inside.correlation,
            correlation_at_borders=at_borders.correlation,
            seam=(at_borders.error / at_borders.num_values) / (inside.error / inside.num_values)
            if is_defined
            else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def describe(self, stack: int, fps: float) -> str:
        """What one will see, in a sentence. stack: frames per VAE call. fps: of the videos, 0.0 unknown."""
        if self.energy is None:
            return "The videos do not move: each is a single frame, or all its frames are equal."
        survives = "of the energy of the motion survives (correlation"
        if self.energy_inside is None:
            return f"{self.energy:.0%} {survives} {self.correlation:.2f})."
        inside = f"{self.energy_inside:.0%} {survives} {self.correlation_inside:.2f})"
        text = f"Inside stacks of {stack} frames {inside}"
        if self.energy_at_borders is not None:
            text += f", at their borders {self.energy_at_borders:.0%}"
        if self.energy_inside >= FROZEN_BELOW:
            return text + "."
        rate = f"{fps / stack:.2g} frames per second instead of {fps:.2g}" if fps else f"1 in {stack} frames"
        return text + f": decoded videos will look like {rate}."


class MotionMeter:
    """Sums the changes of one video piece by piece.

    stack: frames per VAE call; a pair of frames (t - 1, t) is at a border where t is a multiple of it.
    """

    def __init__(self, stack: int) -> None:
        self.inside = self.at_borders = Changes()
        self._stack = stack
        self._num_frames = 0
        self._last: tuple[Array, Array] | None = None

    def update(self, source: Array, copy: Array) -> None:
        """Add frames, both (T, H, W) in [0, 1]."""
        changes = [
            np.diff(frames, axis=0, prepend=frames[:1] if self._last is None else self._last[index][None])
            for index, frames in enumerate((source, copy))
        ]
        numbers = self._num_frames + np.arange(len(source))
        is_border = numbers % self._stack == 0
        is_inside = ~is_border
        self.inside += Changes.between(*(change[is_inside] for change in changes))
        self.at_borders += Changes.between(*(change[is_border & (numbers > 0)] for change in changes))
        self._num_frames += len(source)
        self._last = source[-1], copy[-1]
