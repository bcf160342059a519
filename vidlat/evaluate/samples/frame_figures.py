"""Figures of a clip's pixels that need no features: energy of change, its spectrum over time, fine detail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from vidlat.evaluate.source import detail_energy


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFigures:
    """Energies of a clip, per pixel, of values in [0, 1].

    inside, at_borders: mean square of the change from frame to frame inside stacks and at their borders; NaN
    where there are no such pairs of frames. detail: energy at high spatial frequencies, as for
    `detail_energy`, per frame and pixel. bands: power in each band of temporal frequencies, see
    `band_edges`.
    """

    inside: float
    at_borders: float
    detail: float
    bands: tuple[float, ...]

    @classmethod
    def of(cls, frames: npt.NDArray[np.uint8], frame_step: int) -> Self:
        """The figures of frames (T, H, W). frame_step: from the start of a VAE call to that of the next."""
        pixels = frames / 255.0
        changes = np.square(np.diff(pixels, axis=0)).mean((1, 2))
        is_border = np.arange(1, len(pixels)) % frame_step == 0
        return cls(
            inside=_mean(changes[~is_border]),
            at_borders=_mean(changes[is_border]),
            detail=detail_energy(pixels) / pixels.size,
            bands=_band_powers(pixels),
        )


def band_edges(num_frames: int) -> list[int]:
    """Edges of octaves of temporal frequencies, in periods per clip: 1, 2, 4, ... and one above the highest.

    Empty for a single frame.
    """
    highest = num_frames // 2
    return [*(2**power for power in range(highest.bit_length())), highest + 1] if highest else []


def bands_in_words(num_frames: int, fps: float) -> list[str]:
    """Each band by its frequencies, such as `3.1-4.7 Hz`; periods per clip where the rate is unknown (0)."""
    unit, scale = ("Hz", fps / num_frames) if fps else ("per clip", 1.0)
    edges = band_edges(num_frames)
    return [
        f"{low * scale:.2g} {unit}"
        if high - low == 1
        else f"{low * scale:.2g}-{(high - 1) * scale:.2g} {unit}"
        for low, high in pairwise(edges)
    ]


def band_middles(num_frames: int, fps: float) -> list[float]:
    """The geometric mean of the ends of each band, in the unit of `bands_in_words`."""
    scale = fps / num_frames if fps else 1.0
    return [scale * math.sqrt(low * (high - 1)) for low, high in pairwise(band_edges(num_frames))]


def _band_powers(pixels: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Mean over pixels of the power of each band; with that of frequency 0 it sums to the mean square.

    Every frequency but 0 and the highest of an even number of frames stands for two of the full spectrum.
    """
    num_frames = len(pixels)
    spectrum = np.square(np.abs(np.fft.rfft(pixels, axis=0))).mean((1, 2)) / num_frames**2
    spectrum[1 : (num_frames + 1) // 2] *= 2
    edges = band_edges(num_frames)
    return tuple(float(spectrum[low:high].sum()) for low, high in pairwise(edges))


def _mean(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
