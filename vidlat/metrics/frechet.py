"""The Fréchet distance of two sets of features, in a space of few dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from vidlat.metrics.features import Array, Features

MAX_DIMENSIONS = 32
"""Dimensions at most: the bias of the distance grows with their number over that of the items."""

LEAST_ITEMS = 5
"""Items of each set, at least: fewer leave no dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrincipalComponents:
    """A projection of features (N, D) on orthonormal directions (D, d) of largest variance."""

    mean: Array
    directions: Array

    @classmethod
    def fit(cls, values: Array, num_items: int) -> Self | None:
        """The leading components of values (N, D), for sets of at least `num_items` items.

        Their number is at most MAX_DIMENSIONS, D and N - 1, and less than a quarter of `num_items`. None
        where that leaves no dimension.
        """
        most = min(MAX_DIMENSIONS, values.shape[1], len(values) - 1, -(-num_items // 4) - 1)
        if most < 1:
            return None
        mean = values.mean(0)
        _, _, directions = np.linalg.svd(values - mean, full_matrices=False)
        return cls(mean=mean, directions=directions[:most].T)

    def __call__(self, values: Array) -> Array:
        """The coordinates (N, d) of values (N, D)."""
        coordinates: Array = (values - self.mean) @ self.directions
        return coordinates


class FrechetDistance:
    """The Fréchet distance of Gaussians fitted to two sets, for weights of the items.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500).
    It is above 0 for two draws of one distribution, the more so the fewer items there are: it can be compared
    between sets of equal size alone.
    """

    def __init__(self, one: Features, other: Features) -> None:
        self._one, self._other = one.values, other.values

    def __call__(self, weights_one: Array, weights_other: Array) -> Array:
        """(R,) of weights (R, N) and (R, M), which count items; NaN where they sum to less than 2."""
        (mean, covariance), (other_mean, other_covariance) = (
            _moments(values, weights)
            for values, weights in ((self._one, weights_one), (self._other, weights_other))
        )
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values.clip(0))[:, None]) @ vectors.swapaxes(1, 2)
        # (C C')^(1/2) has the trace of (C^(1/2) C' C^(1/2))^(1/2), whose argument is symmetric.
        cross = np.sqrt(np.linalg.eigvalsh(root @ other_covariance @ root).clip(0)).sum(1)
        traces = np.trace(covariance + other_covariance, axis1=1, axis2=2)
        distances: Array = np.square(mean - other_mean).sum(1) + traces - 2 * cross
        num_items = np.minimum(weights_one.sum(1), weights_other.sum(1))
        return np.where(num_items < 2, np.nan, distances)


def _moments(values: Array, weights: Array) -> tuple[Array, Array]:
    """Means (R, D) and unbiased covariances (R, D, D) of values (N, D) for weights (R, N)."""
    num_dimensions = values.shape[1]
    centred = values - values.mean(0)  # against cancellation
    products = (centred[:, :, None] * centred[:, None]).reshape(len(values), -1)
    total = weights.sum(1)[:, None]
    mean = weights @ centred / total
    second = (weights @ products).reshape(-1, num_dimensions, num_dimensions)
    outer = total[:, :, None] * mean[:, :, None] * mean[:, None]
    return mean + values.mean(0), (second - outer) / np.maximum(total - 1, 1)[:, :, None]
