"""The diversity of a set: how far its items are from each other."""

from __future__ import annotations

from scipy.spatial.distance import cdist

from vidlat.metrics.features import Array, Features, PairMean, ratio


class DiversityRatio:
    """The mean distance of pairs of different groups in one set over that in another, for weights."""

    def __init__(self, one: Features, other: Features) -> None:
        self._one, self._other = (
            PairMean(cdist(each.values, each.values), each, each) for each in (one, other)
        )

    def __call__(self, weights_one: Array, weights_other: Array) -> Array:
        """(R,) of weights (R, N) and (R, M); NaN where a set has fewer than two groups."""
        return ratio(self._one(weights_one, weights_one), self._other(weights_other, weights_other))
