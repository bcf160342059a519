"""Sets of feature vectors whose items may depend on each other, and means over pairs that do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The features of a set of items, such as clips.

    values: (N, D) float64. groups: (N,) names; items of one group, such as the clips of one subject, are not
    independent of each other. A name means the same group in every set.
    """

    values: Array
    groups: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.groups.shape != self.values.shape[:1]:
            raise ValueError(
                f"expected values (N, D) and groups (N,): got {self.values.shape} and {self.groups.shape}"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num_groups(self) -> int:
        """How many different groups the items belong to."""
        return len(np.unique(self.groups))

    def with_values(self, values: Array) -> Features:
        """The same items with other features (N, D')."""
        return Features(values=values, groups=self.groups)

    def independent_of(self, other: Features) -> npt.NDArray[np.bool_]:
        """(N, M): whether an item and one of the other set belong to different groups."""
        return np.asarray(self.groups[:, None] != other.groups)


def unit_weights(features: Features) -> Array:
    """(1, N) weights that count every item once."""
    return np.ones((1, len(features)))


class PairMean:
    """The mean of a function of two items over all pairs of different groups, for weights of the items.

    values: (N, M), of each item of one set and each of another, or the same. A pair of equal items of one set
    is within one group, and left out.
    """

    def __init__(self, values: Array, one: Features, other: Features) -> None:
        is_counted = one.independent_of(other)
        self._values = np.where(is_counted, values, 0.0)
        self._is_counted = is_counted.astype(np.float64)

    def __call__(self, weights_one: Array, weights_other: Array) -> Array:
        """(R,) of weights (R, N) and (R, M); NaN where no pair counts."""
        total, number = (
            ((weights_one @ matrix) * weights_other).sum(1) for matrix in (self._values, self._is_counted)
        )
        return ratio(total, number)


def ratio(numerator: Array, denominator: Array) -> Array:
    """(R,) over (R,); NaN where the denominator is not above 0."""
    quotient = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
