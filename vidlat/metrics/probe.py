"""A linear probe: how well a label can be read from features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from vidlat.metrics.features import Array, Features

PENALTIES = np.logspace(-4, 4, 17)
"""Ridge penalties to choose from, in units of the mean squared norm of the centred features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """A ridge regression of targets on features, with an intercept that is not penalised.

    weights: (D, K). intercept: (K,). penalty: that of PENALTIES which was chosen.
    """

    weights: Array
    intercept: Array
    penalty: float

    @classmethod
    def fit(cls, features: Features, targets: Array) -> Self | None:
        """Fit targets (N, K), such as a number or one-hot classes, to features.

        The penalty is the one whose predictions of each group, fitted without that group, have the least
        squared error. None with fewer than two groups.
        """
        if features.num_groups < 2:
            return None
        mean, target_mean = features.values.mean(0), targets.mean(0)
        left, scales, right = np.linalg.svd(features.values - mean, full_matrices=False)
        unit = np.square(scales).sum() / len(features) or 1.0
        shrinkages = [np.square(scales) / (np.square(scales) + unit * penalty) for penalty in PENALTIES]
        errors = [_left_out_error(features, left, shrinkage, targets) for shrinkage in shrinkages]
        best = int(np.argmin(errors))
        inverse = np.divide(shrinkages[best], scales, out=np.zeros_like(scales), where=scales > 0)
        weights = right.T @ (inverse[:, None] * (left.T @ (targets - target_mean)))
        return cls(weights=weights, intercept=target_mean - mean @ weights, penalty=float(PENALTIES[best]))

    def __call__(self, values: Array) -> Array:
        """The predictions (N, K) of features (N, D)."""
        predictions: Array = values @ self.weights + self.intercept
        return predictions


def _left_out_error(features: Features, left: Array, shrinkage: Array, targets: Array) -> float:
    """The squared error of each group's predictions, fitted without it.

    For any penalised least squares with the predictions H y these errors are (I - H_gg)^-1 r_g, of the
    residuals r = y - H y of the group g (Cook and Weisberg 1982, section 3.6).
    """
    centred = targets - targets.mean(0)
    residuals = centred - left @ (shrinkage[:, None] * (left.T @ centred))
    error = 0.0
    for group in np.unique(features.groups):
        rows = features.groups == group
        part = left[rows]
        hat = part @ (shrinkage[:, None] * part.T) + 1 / len(targets)
        error += float(np.square(np.linalg.solve(np.eye(len(part)) - hat, residuals[rows])).sum())
    return error
