"""The embedding of a condition, which a network adds to that of the timestep."""

from __future__ import annotations

from torch import nn


def feature_embedding(num_features: int, width: int) -> nn.Sequential:
    """Layers from features (B, num_features) to (B, width), zero-initialised.

    They have no bias, so features that are all zeros, an unknown condition, always give zero. There are two
    layers, because a single zero-initialised one learns `width` times more slowly than the network behind it:
    Adam moves every weight by the same amount.
    """
    last = nn.Linear(width, width, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(num_features, width, bias=False), nn.SiLU(), last)
