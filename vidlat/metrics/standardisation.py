"""Features in units of their spread over a set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from vidlat.metrics.features import Array

LEAST = 0.1
"""Least unit, as a share of the root mean square spread of all features.

A feature that hardly differs between real items, such as that of a black corner, would otherwise outweigh all
others as soon as samples differ from it by what nobody sees.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardisation:
    """Mean and unit (D,) of each feature."""

    mean: Array
    unit: Array

    @classmethod
    def fit(cls, values: Array) -> Self:
        """The mean and the standard deviation over items (N, D), the latter at least LEAST."""
        spread = values.std(0)
        least = LEAST * float(np.sqrt(np.square(spread).mean()))
        return cls(mean=values.mean(0), unit=np.maximum(spread, least or 1.0))

    def __call__(self, values: Array) -> Array:
        """Values (N, D) less their mean, in units."""
        standardised: Array = (values - self.mean) / self.unit
        return standardised
