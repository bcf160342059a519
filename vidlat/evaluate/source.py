"""Frames of a source with what every comparison with them needs: the spatial figures, SSIM and detail."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dctn
from torch.nn.functional import pad

from vidlat.errors import ShapeError

Array = npt.NDArray[np.floating]

SHARP_ABOVE = 0.5
"""Spatial frequencies above this share of the Nyquist frequency count as detail, for the sharpness."""

WINDOW = 11
"""Pixels of a side of the window of SSIM, and so of the smallest frame."""

_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_TILE = 30  # rows of means from one matrix product: as fast from 20 to 50


class SourceFrames:
    """Frames (T, H, W) of range 1, whose part of each figure is computed once for all copies of them.

    Raises ShapeError for frames under 11 pixels.
    """

    def __init__(self, frames: Array) -> None:
        if frames.ndim != 3 or min(frames.shape[1:]) < WINDOW:
            raise ShapeError(
                f"SSIM needs frames of at least {WINDOW}x{WINDOW} pixels: got {frames.shape[1:]}"
            )
        self.pixels = frames.astype(np.float64)
        self.detail_energy = detail_energy(self.pixels)
        self._squares = self.pixels * self.pixels
        self._means = _windowed_mean(self.pixels)
        self._squared_means = self._means * self._means

    def similarity_of(self, copy: Array) -> Array:
        """SSIM of each frame and that of a copy (T, H, W): (T,); population covariance.

        Windows are Gaussian, 11 pixels wide, sigma 1.5; averaged over those that lie within the frame.
        Wang et al. 2004, doi 10.1109/TIP.2003.819861.
        """
        means = _windowed_mean(copy)
        product_of_means = self._means * means
        sum_of_squared_means = self._squared_means + means * means
        covariance = _windowed_mean(self.pixels * copy) - product_of_means
        sum_of_variances = _windowed_mean(self._squares + copy * copy) - sum_of_squared_means
        numerator = (2 * product_of_means + _C1) * (2 * covariance + _C2)
        denominator = (sum_of_squared_means + _C1) * (sum_of_variances + _C2)
        return np.asarray((numerator / denominator).mean(axis=(1, 2)))


def detail_energy(frames: Array) -> float:
    """Energy of frames (T, H, W) at spatial frequencies above SHARP_ABOVE, by the cosine transform.

    The cosine transform (DCT-II) continues a frame as its mirror image, so that opposite edges of different
    brightness are no detail.
    """
    rows, columns = (np.arange(side) / side for side in frames.shape[1:])
    is_detail = np.hypot(rows[:, None], columns) > SHARP_ABOVE
    energies = np.square(dctn(frames, axes=(1, 2), norm="ortho")).sum(axis=0)
    return float(energies[is_detail].sum())


def _windowed_mean(values: Array) -> Array:
    """Frames (T, H, W) to weighted means of the windows within each: (T, H - 10, W - 10)."""
    by_rows = _windowed_mean_of_rows(torch.from_numpy(values))
    return _windowed_mean_of_rows(by_rows.transpose(1, 2)).transpose(1, 2).numpy()


def _windowed_mean_of_rows(values: torch.Tensor) -> torch.Tensor:
    """(T, H, W) to (T, H - 10, W), in tiles of _TILE rows, each a product with the same band matrix.

    In PyTorch: several videos are compared at once, and NumPy's threads would fight over the cores.
    """
    num_means = values.shape[1] - WINDOW + 1
    padded = pad(values, (0, 0, 0, -num_means % _TILE))
    tiles = padded.unfold(1, _TILE + WINDOW - 1, _TILE)  # (T, tiles, W, _TILE + 10)
    means = tiles @ _band_matrix().T
    return means.transpose(2, 3).flatten(1, 2)[:, :num_means]


@cache
def _band_matrix() -> torch.Tensor:
    """(_TILE, _TILE + 10): each row holds the weights of one window."""
    offsets = np.arange(_TILE + WINDOW - 1) - np.arange(_TILE)[:, None] - WINDOW // 2
    weights = np.where(abs(offsets) <= WINDOW // 2, np.exp(-(offsets**2) / (2 * _SIGMA**2)), 0)
    return torch.from_numpy(weights / weights[0].sum())
