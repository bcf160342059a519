"""Bins of histograms: where their edges are, and how many values are in each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NUM_BINS = 31
"""An odd number: values that differ in their last digits alone are one bar, in the middle."""


def spread_bins(values: Sequence[float]) -> tuple[npt.NDArray[np.float64], bool]:
    """Edges of NUM_BINS bins over values above 0, and whether they are for a logarithmic axis.

    They are where the greatest value is more than 50 times the least.
    """
    low, high = min(values), max(values)
    if high > 50 * low:
        return np.geomspace(low, high, NUM_BINS + 1), True
    middle, half = (low + high) / 2, max(high - low, 0.04 * high) / 2
    return np.linspace(middle - half, middle + half, NUM_BINS + 1), False


def count_in_bins(values: npt.ArrayLike, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many values are in each bin; what lies beyond is in the outermost, be it a rounding error."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
