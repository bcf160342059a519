"""Estimates with intervals: a bootstrap that draws whole groups of items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.metrics.features import Array, Features, ratio, unit_weights

Statistic = Callable[[Array, Array], Array]
"""Weights (R, N) and (R, M) of the items of two sets to R values, NaN where they are undefined."""

NUM_RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval; what cannot be told is None."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies in the interval; False where there is none."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def estimate(statistic: Statistic, one: Features, other: Features, *, seed: int = 0) -> Estimate:
    """The statistic of two sets, with the interval of a bootstrap that draws their groups with replacement.

    The interval is the value plus the quantiles of the replicates less their mean: a replicate draws from the
    sets at hand, whose repeated items give it a bias of its own. There is no interval where a set has fewer
    than two groups. Replicates that are undefined are left out. Field and Welsh 2007, doi
    10.1111/j.1467-9868.2007.00593.x, on the bootstrap of clusters.
    """
    value = _finite(statistic(unit_weights(one), unit_weights(other))[0])
    if value is None or min(one.num_groups, other.num_groups) < 2:
        return Estimate(value=value)
    generator = np.random.default_rng(seed)
    replicates = statistic(
        resampled_weights(one.groups, generator), resampled_weights(other.groups, generator)
    )
    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates):
        return Estimate(value=value)
    tails = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - replicates.mean()
    return Estimate(value=value, low=float(value + tails[0]), high=float(value + tails[1]))


def resampled_weights(groups: npt.NDArray[np.str_], generator: np.random.Generator) -> Array:
    """(NUM_RESAMPLES, N): how often each item is drawn if as many groups as there are are drawn again."""
    names, places = np.unique(groups, return_inverse=True)
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), NUM_RESAMPLES)
    return counts[:, places].astype(np.float64)


def ratio_of_means(one: Array, other: Array) -> Statistic:
    """The mean of (N,) numbers over that of (M,) others; NaN where the latter is 0."""

    def statistic(weights_one: Array, weights_other: Array) -> Array:
        means = (
            weights @ values / weights.sum(1)
            for weights, values in ((weights_one, one), (weights_other, other))
        )
        return ratio(*means)

    return statistic


def _finite(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None
