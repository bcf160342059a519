"""Estimates with intervals: a bootstrap that draws whole groups of items."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.metrics.features import Array, Features, ratio, unit_weights

Statistic = Callable[..., Array]
"""Weights of the items of each of some sets, such as (R, N) and (R, M), to R values, NaN where undefined.

Several that are computed together give (R, K).
"""

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

    def within(self, lowest: float, highest: float) -> Estimate:
        """The same with an interval that goes no farther than what the statistic can be."""
        if self.low is None or self.high is None:
            return self
        return Estimate(value=self.value, low=max(self.low, lowest), high=min(self.high, highest))

    def in_words(self, factor: float = 1) -> str:
        """As text, such as `12.5 (8 to 1,710)`, times a factor; a dash for None."""
        if self.value is None:
            return "-"
        text = in_figures(self.value * factor)
        if self.low is None or self.high is None:
            return text
        return f"{text} ({in_figures(self.low * factor)} to {in_figures(self.high * factor)})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def estimate(statistic: Statistic, *sets: Features, seed: int = 0, is_positive: bool = False) -> Estimate:
    """The statistic of some sets, with the interval of a bootstrap that draws their groups with replacement.

    The interval is the value plus the quantiles of the replicates less their mean: a replicate draws from the
    sets at hand, whose repeated items give it a bias of its own. is_positive: the statistic, such as a ratio,
    is never below 0, and so is its interval, computed from logarithms. There is no interval where a set has
    fewer than two groups. Replicates that are undefined are left out. Field and Welsh 2007, doi
    10.1111/j.1467-9868.2007.00593.x, on the bootstrap of clusters.
    """

    def alone(*weights: Array) -> Array:
        return statistic(*weights)[:, None]

    return estimates(alone, *sets, seed=seed, is_positive=is_positive)[0]


def estimates(
    statistic: Statistic, *sets: Features, seed: int = 0, is_positive: bool = False
) -> list[Estimate]:
    """As `estimate`, for statistics (R, K) that are computed together: K estimates of the same draws."""
    values = statistic(*map(unit_weights, sets))[0].tolist()
    if not any(map(math.isfinite, values)) or min(each.num_groups for each in sets) < 2:
        return [Estimate(value=value if math.isfinite(value) else None) for value in values]
    random = np.random.default_rng(seed)
    replicates = statistic(*(resampled_weights(each.groups, random) for each in sets))
    return [
        _with_interval(value, column, is_positive) for value, column in zip(values, replicates.T, strict=True)
    ]


def _with_interval(value: float, replicates: Array, is_positive: bool) -> Estimate:
    if not math.isfinite(value):
        return Estimate(value=None)
    replicates = replicates[np.isfinite(replicates) & ((replicates > 0) | (not is_positive))]
    if not len(replicates) or (is_positive and value <= 0):
        return Estimate(value=value)
    levels = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if is_positive:
        logarithms = np.log(replicates)
        low, high = value * np.exp(np.quantile(logarithms, levels) - logarithms.mean())
    else:
        low, high = value + np.quantile(replicates, levels) - replicates.mean()
    return Estimate(value=value, low=float(low), high=float(high))


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


def in_figures(value: float) -> str:
    """Three significant digits, or all before the point, with separators of thousands."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{round(value, 4):.3g}"
