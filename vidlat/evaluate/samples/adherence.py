"""Whether samples show the condition they were drawn with, as a linear probe on latent features reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidlat.errors import ConfigError
from vidlat.metrics.features import Array, Features, unit_weights
from vidlat.metrics.intervals import Estimate, Statistic, estimate
from vidlat.metrics.probe import LinearProbe
from vidlat.train.objectives.conditioning import ClassCondition, Condition, Labels, parse_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Adherence:
    """The error with which a label is read from clips, and that of a constant prediction.

    For classes the share that is read wrongly; the constant is the training clips' most frequent class. For
    numbers the root mean square error in the unit of the label; the constant is the training clips' mean.
    num_clips: those with the label. The interval of the error is that of other clips read by the same probe.
    """

    error: Estimate
    constant_error: float
    num_clips: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "error": self.error.to_dict(),
            "constant_error": self.constant_error,
            "num_clips": self.num_clips,
        }


class LabelReader:
    """A probe for one condition, fitted on training clips; None for a label of fewer than two subjects."""

    def __init__(self, condition: Condition, features: Features, labels: Sequence[Labels]) -> None:
        self._condition = condition
        rows, targets = self._targets(labels)
        known = Features(values=features.values[rows], groups=features.groups[rows])
        self._probe = LinearProbe.fit(known, targets) if len(rows) else None
        self._constant = targets.mean(0) if len(rows) else None

    def read(self, features: Features, labels: Sequence[Labels]) -> Adherence | None:
        """The error on clips; None where the probe cannot be fitted, or no clip has the label."""
        rows, targets = self._targets(labels)
        if self._probe is None or self._constant is None or not len(rows):
            return None
        read = Features(values=features.values[rows], groups=features.groups[rows])
        constant = np.broadcast_to(self._constant, targets.shape)
        return Adherence(
            error=estimate(self._mean_of(self._probe(read.values), targets), read).within(0, self._highest()),
            constant_error=float(self._mean_of(constant, targets)(unit_weights(read))[0]),
            num_clips=len(rows),
        )

    def _targets(self, labels: Sequence[Labels]) -> tuple[list[int], Array]:
        """The clips with a label, and their targets (n, K): one-hot classes, or the number itself."""
        name = self._condition.name
        rows = [row for row, each in enumerate(labels) if self._is_known(each.get(name, ""))]
        texts = [labels[row][name] for row in rows]
        if isinstance(self._condition, ClassCondition):
            return rows, np.array([self._condition.encode(text) for text in texts])
        return rows, np.array([[parse_number(name, text)] for text in texts])

    def _is_known(self, text: str) -> bool:
        try:
            self._condition.encode(text)
        except ConfigError:
            return False
        return True

    def _mean_of(self, predictions: Array, targets: Array) -> Statistic:
        """Weights (R, N) of clips to the error (R,)."""
        is_class = isinstance(self._condition, ClassCondition)
        errors = (
            (predictions.argmax(1) != targets.argmax(1)).astype(np.float64)
            if is_class
            else np.square(predictions - targets).mean(1)
        )

        def statistic(weights: Array) -> Array:
            means: Array = weights @ errors / weights.sum(1)
            return means if is_class else np.sqrt(means)

        return statistic

    def _highest(self) -> float:
        return 1.0 if isinstance(self._condition, ClassCondition) else math.inf
