"""The diffusion U-Nets by name and size, and their embedding of a condition."""

from __future__ import annotations

from typing import Any

from torch import nn

from vidlat.config import Network, Preset

CHANNELS: dict[tuple[Network, Preset], tuple[tuple[int, ...], int]] = {
    ("monai", "tiny"): ((32, 64, 128), 1),
    ("monai", "small"): ((48, 96, 192), 1),
    ("monai", "base"): ((64, 128, 256), 2),
    ("space-time", "tiny"): ((40, 80, 160), 1),
    ("space-time", "small"): ((64, 128, 192), 1),
    ("space-time", "base"): ((80, 160, 256), 2),
}
"""Channels of each level, and blocks per level. Both networks of a preset cost about the same to run."""

CONDITION_LAYERS = ("embedding.features.", "network.class_embedding.")
SPAN_LAYERS = ("embedding.span.",)
"""What the names of weights begin with that embed a condition, and a span."""


def build_unet(
    network: Network,
    preset: Preset,
    latent_dim: int,
    *,
    num_features: int = 0,
    takes_first_frame: bool = False,
    takes_span: bool = False,
) -> nn.Module:
    """Build a newly initialised network; draws from torch's global generator.

    num_features: length of a condition's features. takes_first_frame: whether the input has the channels of
    `noising.join_first_frame`. takes_span: whether it is called with the span of an average velocity, which
    MONAI's network is not.
    """
    channels, num_blocks = CHANNELS[network, preset]
    in_channels = 2 * latent_dim + 1 if takes_first_frame else latent_dim
    sizes: dict[str, Any] = {"channels": channels, "num_blocks": num_blocks, "num_features": num_features}
    if network == "monai":
        from vidlat.train.monai_unet import MonaiUNet as UNet  # MONAI takes seconds to import
    else:
        from vidlat.train.space_time_unet import SpaceTimeUNet as UNet  # type: ignore[assignment]

        sizes["takes_span"] = takes_span
    return UNet(in_channels, latent_dim, **sizes)


def feature_embedding(num_features: int, width: int) -> nn.Sequential:
    """Layers from features (B, num_features) to (B, width), zero-initialised.

    They have no bias, so features that are all zeros, an unknown condition, always give zero. There are two
    layers, because a single zero-initialised one learns `width` times more slowly than the network behind it:
    Adam moves every weight by the same amount.
    """
    last = nn.Linear(width, width, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(num_features, width, bias=False), nn.SiLU(), last)
