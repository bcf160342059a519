"""Precision and recall, density and coverage: do samples lie where real items are, and everywhere there?"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.spatial.distance import cdist

from vidlat.metrics.features import Array, Features

NUM_NEIGHBOURS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhoods:
    """How samples lie in the neighbourhoods of real items, the balls as far as the fifth neighbour.

    precision: share of samples in the ball of a real item; recall: share of real items in the ball of a
    sample (Kynkäänniemi et al. 2019, arXiv 1904.06991). density: how many balls of real items a sample lies
    in, over the number of neighbours; may exceed 1. coverage: share of real items whose ball holds a sample
    (Naeem et al. 2020, arXiv 2002.09797).
    """

    precision: float
    recall: float
    density: float
    coverage: float

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


def neighbourhoods(real: Features, samples: Features) -> Neighbourhoods | None:
    """The four figures; None where an item of a set has fewer than five neighbours of other groups.

    The radius of an item's ball is the distance of its fifth neighbour among items of other groups: those of
    its own are nearer than a new subject could be.
    """
    radii_of_real, radii_of_samples = _radii(real), _radii(samples)
    if radii_of_real is None or radii_of_samples is None:
        return None
    distances = cdist(real.values, samples.values)
    is_in_real = distances <= radii_of_real[:, None]
    is_in_sample = distances <= radii_of_samples
    return Neighbourhoods(
        precision=float(is_in_real.any(0).mean()),
        recall=float(is_in_sample.any(1).mean()),
        density=float(is_in_real.sum(0).mean() / NUM_NEIGHBOURS),
        coverage=float(is_in_real.any(1).mean()),
    )


def _radii(features: Features) -> Array | None:
    if len(features) <= NUM_NEIGHBOURS:
        return None
    distances = cdist(features.values, features.values)
    distances[~features.independent_of(features)] = np.inf
    radii: Array = np.partition(distances, NUM_NEIGHBOURS - 1, axis=1)[:, NUM_NEIGHBOURS - 1]
    return radii if np.isfinite(radii).all() else None
