"""The diffusion U-Net: MONAI's network behind a wrapper that takes latents of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn
from torch.nn import functional

Preset = Literal["tiny", "small", "base"]


@dataclass(frozen=True, slots=True)
class _Size:
    channels: tuple[int, ...]
    num_res_blocks: int


# Parameters and forward cost on (4, 4, 32, 32): 7 M, 5 GFLOP; 16 M, 12 GFLOP; 42 M, 30 GFLOP.
_SIZES: dict[Preset, _Size] = {
    "tiny": _Size((32, 64, 128), 1),
    "small": _Size((48, 96, 192), 1),
    "base": _Size((64, 128, 256), 2),
}


class LatentUNet(nn.Module):
    """Predicts the objective's target from noised latents (B, L, t, h, w) and timesteps (B,) in [0, 1].

    Every axis may have any length >= 1: MONAI's network needs multiples of 2 to the number of
    down-samplings and otherwise fails, so the latents are edge-padded for it and its answer is cropped.
    """

    def __init__(self, latent_dim: int, channels: tuple[int, ...], num_res_blocks: int) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)
        self.network = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=latent_dim,
            out_channels=latent_dim,
            channels=channels,
            num_res_blocks=num_res_blocks,
            attention_levels=tuple(level >= len(channels) - 2 for level in range(len(channels))),
            num_head_channels=32,
            # 32 groups, the default, of 32 channels would leave each channel alone and erase its mean.
            norm_num_groups=8,
        )

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The prediction, of the latents' shape."""
        length, height, width = latents.shape[2:]
        missing = [-size % self.multiple for size in (width, height, length)]
        padding = [side for size in missing for side in (0, size)]
        padded = functional.pad(latents, padding, mode="replicate") if any(missing) else latents
        # The network's sinusoidal embedding expects timesteps up to 1000.
        prediction: torch.Tensor = self.network(padded, 1000 * timestep)
        return prediction[:, :, :length, :height, :width]


def build_unet(preset: Preset, latent_dim: int) -> LatentUNet:
    """A freshly initialised network of a preset size; draws from torch's global generator."""
    size = _SIZES[preset]
    return LatentUNet(latent_dim, size.channels, size.num_res_blocks)
