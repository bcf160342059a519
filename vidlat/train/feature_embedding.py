"""A condition's features as what a network adds to its embedded timestep."""

from __future__ import annotations

from torch import nn


def feature_embedding(num_features: int, width: int) -> nn.Sequential:
    """Features (B, num_features) to (B, width): at first zero for all of them, for ever for all zeros.

    Nothing has a bias: where no condition is ever seen, nothing is learnt. Two layers, because a single one
    that begins at zero learns `width` times slower than the network behind it: Adam moves every weight alike.
    """
    last = nn.Linear(width, width, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(num_features, width, bias=False), nn.SiLU(), last)
