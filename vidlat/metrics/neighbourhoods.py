"""Precision and recall, density and coverage: do samples lie where real items are, and everywhere there?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from vidlat.metrics.features import Array, Features
from vidlat.metrics.intervals import Estimate, estimates

NUM_NEIGHBOURS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhoods:
    """How samples lie in the neighbourhoods of real items, the balls as far as the fifth neighbour.

    precision: share of samples in the ball of a real item; recall: share of real items in the ball of a
    sample (Kynkäänniemi et al. 2019, arXiv 1904.06991). density: how many balls of real items a sample lies
    in, over the number of neighbours; may exceed 1. coverage: share of real items whose ball holds a sample
    (Naeem et al. 2020, arXiv 2002.09797).
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: getattr(self, name).to_dict() for name in self.__slots__}


def neighbourhoods(real: Features, samples: Features) -> Neighbourhoods | None:
    """The four figures; None where an item of a set has fewer than five neighbours of other groups.

    The radius of an item's ball is the distance of its fifth neighbour among items of other groups: those of
    its own are nearer than a new subject could be. In a draw of the bootstrap the balls are those of what is
    drawn.
    """
    precision, recall, density, coverage = estimates(_Balls(real, samples), real, samples)
    if precision.value is None:
        return None
    return Neighbourhoods(
        precision=precision.within(0, 1),
        recall=recall.within(0, 1),
        density=density.within(0, math.inf),
        coverage=coverage.within(0, 1),
    )


class _Balls:
    """Precision, recall, density and coverage (R, 4) of weights (R, N) and (R, M), which count items.

    NaN where an item that counts has fewer than five neighbours that do.
    """

    def __init__(self, real: Features, samples: Features) -> None:
        self._distances = cdist(real.values, samples.values)
        self._real, self._samples = _Neighbours(real), _Neighbours(samples)

    def __call__(self, weights: Array, of_samples: Array) -> Array:
        return np.array([self._figures(*each) for each in zip(weights, of_samples, strict=True)])

    def _figures(self, weights: Array, of_samples: Array) -> Array:
        radii, radii_of_samples = self._real.radii(weights), self._samples.radii(of_samples)
        if np.isnan(radii[weights > 0]).any() or np.isnan(radii_of_samples[of_samples > 0]).any():
            return np.full(4, np.nan)
        is_in_real = (self._distances <= radii[:, None]) & (weights > 0)[:, None] & (of_samples > 0)
        is_in_sample = (self._distances <= radii_of_samples) & (of_samples > 0)
        num_real, num_samples = weights.sum(), of_samples.sum()
        return np.array(
            [
                is_in_real.any(0) @ of_samples / num_samples,
                is_in_sample.any(1) @ weights / num_real,
                weights @ is_in_real @ of_samples / num_samples / NUM_NEIGHBOURS,
                is_in_real.any(1) @ weights / num_real,
            ]
        )


class _Neighbours:
    """The items of a set in the order of their distance from each; those of its own group are left out."""

    def __init__(self, features: Features) -> None:
        distances = cdist(features.values, features.values)
        distances[~features.independent_of(features)] = np.inf
        self._order = np.argsort(distances, axis=1)
        self._distances = np.take_along_axis(distances, self._order, axis=1)

    def radii(self, weights: Array) -> Array:
        """(N,) distances of the fifth neighbour, for weights (N,) that count items; NaN without one."""
        is_reached = (np.cumsum(weights[self._order], axis=1) >= NUM_NEIGHBOURS) & (self._distances < np.inf)
        radii = np.take_along_axis(self._distances, is_reached.argmax(1)[:, None], axis=1)[:, 0]
        return np.where(is_reached.any(1), radii, np.nan)
