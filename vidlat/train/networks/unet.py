"""The diffusion U-Nets by name and size, and their embedding of a condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from vidlat.config import Network, Preset

NUM_GROUPS = 8
"""Groups of every norm. 32, MONAI's default, would normalise each of 32 channels alone and erase its mean."""

LEVELS_IN_SPACE = 2
"""Smallest levels that attend within a frame, unless told; at the others a frame has too many positions."""

HEAD_CHANNELS = 32
"""Least channels of a head, unless told how many heads there are."""

CHANNELS: dict[tuple[Network, Preset], tuple[tuple[int, ...], int]] = {
    ("monai", "tiny"): ((32, 64, 128), 1),
    ("monai", "small"): ((48, 96, 192), 1),
    ("monai", "base"): ((64, 128, 256), 2),
    ("monai", "large"): ((96, 192, 384), 2),
    ("space-time", "tiny"): ((40, 80, 160), 1),
    ("space-time", "small"): ((64, 128, 192), 1),
    ("space-time", "base"): ((80, 160, 256), 2),
    ("space-time", "large"): ((128, 224, 384), 2),
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
    channels: Sequence[int] = (),
    num_blocks: int | None = None,
    num_attending: int | None = None,
    num_heads: int | None = None,
    num_features: int = 0,
    takes_first_frame: bool = False,
    takes_span: bool = False,
) -> nn.Module:
    """Build a newly initialised network; draws from torch's global generator.

    channels, num_blocks: of each level, in place of the preset's. num_attending: how many of the smallest
    levels attend within a frame; else LEVELS_IN_SPACE. num_heads: of every attention; else `usual_heads`.
    num_features: length of a condition's features. takes_first_frame: whether the input has the channels of
    `noising.join_first_frames`. takes_span: whether it is called with the span of an average velocity, which
    MONAI's network is not.
    """
    usual_channels, usual_blocks = CHANNELS[network, preset]
    channels = tuple(channels) or usual_channels
    in_channels = 2 * latent_dim + 1 if takes_first_frame else latent_dim
    attending = LEVELS_IN_SPACE if num_attending is None else num_attending
    options: dict[str, Any] = {
        "channels": channels,
        "num_blocks": num_blocks or usual_blocks,
        "attends": [level >= len(channels) - attending for level in range(len(channels))],
        "heads": [num_heads or usual_heads(width) for width in channels],
        "num_features": num_features,
    }
    if network == "monai":
        from vidlat.train.networks.monai_unet import MonaiUNet as UNet  # MONAI takes seconds to import
    else:
        from vidlat.train.networks.space_time_unet import SpaceTimeUNet as UNet  # type: ignore[assignment]

        options["takes_span"] = takes_span
    return UNet(in_channels, latent_dim, **options)


def usual_heads(channels: int) -> int:
    """As many heads of HEAD_CHANNELS channels or more as there can be of the same, even size; else one."""
    most = channels // HEAD_CHANNELS
    return next((heads for heads in range(most, 1, -1) if channels % (2 * heads) == 0), 1)


def feature_embedding(num_features: int, width: int) -> nn.Sequential:
    """Layers from features (B, num_features) to (B, width), zero-initialised.

    They have no bias, so features that are all zeros, an unknown condition, always give zero. There are two
    layers, because a single zero-initialised one learns `width` times more slowly than the network behind it:
    Adam moves every weight by the same amount.
    """
    last = nn.Linear(width, width, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(num_features, width, bias=False), nn.SiLU(), last)
