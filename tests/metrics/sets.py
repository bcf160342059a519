"""Sets of features whose distribution is known."""

import numpy as np

from vidlat.metrics.features import Features


def independent(values, name="item"):
    """Every row its own group."""
    values = np.asarray(values, float)
    return Features(values=values, groups=np.array([f"{name}{row}" for row in range(len(values))]))


def two_levels(rng, num_groups, per_group, dimensions, *, within=0.5, name="subject"):
    """Standard normal rows whose group explains the share 1 - within of the variance."""
    centres = rng.normal(0, np.sqrt(1 - within), (num_groups, 1, dimensions))
    rows = centres + rng.normal(0, np.sqrt(within), (num_groups, per_group, dimensions))
    groups = np.repeat([f"{name}{number}" for number in range(num_groups)], per_group)
    return Features(values=rows.reshape(-1, dimensions), groups=groups)
