"""Features of a clip from its latents: how each part of the picture looks, and how much it changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

GRID = 4
"""Cells along height and width of a latent frame, where it has as many positions."""

FLOOR = 0.05
"""Added to spreads and changes, in standard deviations of a channel, before their logarithm is taken."""

Array = npt.NDArray[np.float64]


def latent_features(latents: npt.NDArray[np.floating]) -> Array:
    """Features (D,) of whitened latents (L, t, h, w), per channel and cell of a 4 x 4 grid.

    Mean; logarithm of the spatial spread, the root mean square deviation from the mean of a cell in a frame;
    and, where t > 1, logarithm of the root mean square change from one latent frame to the next. The
    logarithm makes features of scales as normal as the mean. There is no standard network for medical video;
    these features tell noise from structure and still clips from moving ones, not a good diagnosis from a bad
    one.
    """
    values = latents.astype(np.float64)
    means = _cell_means(values)
    variances = np.maximum(_cell_means(np.square(values)) - np.square(means), 0)
    parts = [means.mean(1), _log(variances.mean(1))]
    if values.shape[1] > 1:
        parts.append(_log(_cell_means(np.square(np.diff(values, axis=1))).mean(1)))
    return np.concatenate([part.ravel() for part in parts])


def _log(squares: Array) -> Array:
    logarithm: Array = np.log(FLOOR + np.sqrt(squares))
    return logarithm


def _cell_means(values: Array) -> Array:
    """(L, t, h, w) to the means of cells (L, t, rows, columns), which differ by one position at most."""
    for axis in (2, 3):
        size = values.shape[axis]
        edges = np.linspace(0, size, min(GRID, size) + 1).astype(int)
        shape = [1] * 4
        shape[axis] = -1
        values = np.add.reduceat(values, edges[:-1], axis=axis) / np.diff(edges).reshape(shape)
    return values
