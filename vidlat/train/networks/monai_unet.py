"""MONAI's diffusion U-Net behind a wrapper that takes latents of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vidlat.train.networks.unet import NUM_GROUPS, feature_embedding


class MonaiUNet(nn.Module):
    """Noised latents (B, in_channels, t, h, w), timesteps (B,) and features to (B, out_channels, t, h, w).

    Every axis may have any length >= 1. MONAI's network requires multiples of 2 to the number of
    down-samplings, so the latents are edge-padded for it and its output is cropped. timestep: in [0, 1].
    features: (B, num_features), a condition; zeros mean unknown, see `feature_embedding`. channels, attends,
    heads: of each level, its width, whether it has attention, and into how many heads that is split.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int],
        num_blocks: int,
        attends: Sequence[bool],
        heads: Sequence[int],
        num_features: int = 0,
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)
        self.network = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=channels,
            num_res_blocks=num_blocks,
            attention_levels=attends,
            num_head_channels=[width // number for width, number in zip(channels, heads, strict=True)],
            norm_num_groups=NUM_GROUPS,
            num_class_embeds=1 if num_features else None,
        )
        if num_features:
            # In place of MONAI's embedding of a class index.
            self.network.class_embedding = feature_embedding(num_features, 4 * channels[0])
        self.checkpoints_activations = False
        network = self.network
        for block in (*network.down_blocks, network.middle_block, *network.up_blocks):
            block.forward = partial(self._run, block.forward)

    def _run(self, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        """Call a block of MONAI's network, which knows nothing of recomputed activations."""
        if self.checkpoints_activations and self.training and torch.is_grad_enabled():
            return checkpoint(forward, *inputs, use_reentrant=False, **named)
        return forward(*inputs, **named)

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The prediction, of the latents' length, height and width."""
        length, height, width = latents.shape[2:]
        missing = [-size % self.multiple for size in (width, height, length)]
        padding = [side for size in missing for side in (0, size)]
        padded = functional.pad(latents, padding, mode="replicate") if any(missing) else latents
        # The network's sinusoidal embedding expects timesteps up to 1000.
        prediction: torch.Tensor = self.network(padded, 1000 * timestep, class_labels=features)
        return prediction[:, :, :length, :height, :width]
