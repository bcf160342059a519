"""What a frozen VAE needs of a network, whatever its kind.

Shape letters: N stacks, S frames per stack, H height, W width; L latent channels, t latent frames per stack,
h, w latent height and width.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn


class Autoencoder(Protocol):
    """A network that turns stacks of gray frames into latents and back, and what depends on its kind.

    network: its tensors, by which a VAE is known; those that make latents are named as `hash_encoder` has it.
    encoder_config: what else determines a latent, part of the identity of a cache: values for JSON by name,
    one of them `in_channels`. library: the package of its class. latent_dim: L. time_compression: S / t.
    space_compression: H / h and W / w.
    """

    network: nn.Module
    encoder_config: dict[str, Any]
    library: str
    latent_dim: int
    time_compression: int
    space_compression: int

    def memory_format(self, device_type: str) -> torch.memory_format:
        """The layout in which the tensors of the network are fastest on a kind of device: cpu or cuda."""

    def hold_in_bfloat16(self, device_type: str) -> None:
        """Make the network compute in bfloat16 on a kind of device, in place; its ends may stay float32."""

    def encode(self, stacks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and standard deviation (N, L, t, h, w) of frames (N, 1, S, H, W) in [0, 1]."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Frames (N, 1, S, H, W), which may leave [0, 1] a little, of latents (N, L, t, h, w)."""
