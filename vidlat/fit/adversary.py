"""The discriminator that a VAE is trained against: it tells decoded stacks from real ones.

MONAI's PatchDiscriminator with the settings of NVIDIA's training of MAISI, except that it is 2-D with the
frames of a stack as channels: it sees all of them at once, and so judges their motion too.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import nn
from torch.func import functional_call

from vidlat.errors import ConfigError
from vidlat.train.ranks import Ranks

SMALLEST = 24
"""Pixels of a side below which its last layers see a single position, which they cannot normalise."""


def require_side(side: int) -> None:
    """Raise ConfigError for frames or patches of a side that is too small."""
    if side < SMALLEST:
        raise ConfigError(
            f"adversarial_weight: got frames or patches of {side} pixels; expected at least {SMALLEST} "
            "for the discriminator, or a weight of 0"
        )


class Adversary:
    """A discriminator with its optimiser. num_frames: of a stack. Raises ConfigError as `require_side`."""

    def __init__(self, num_frames: int, side: int, learning_rate: float, ranks: Ranks) -> None:
        require_side(side)
        self.model: nn.Module = PatchDiscriminator(
            spatial_dims=2, channels=32, in_channels=num_frames, num_layers_d=3, norm="INSTANCE"
        ).to(ranks.device)
        self.weights = list(self.model.parameters())
        self.optimiser = torch.optim.AdamW(self.weights, lr=learning_rate, weight_decay=0.0, fused=True)
        self._network = ranks.wrap(self.model)
        self._criterion = PatchAdversarialLoss(criterion="least_squares")

    def term(self, decoded: torch.Tensor) -> torch.Tensor:
        """How far decoded stacks (N, 1, S, H, W) are from passing for real.

        Gives the discriminator no gradient.
        """
        frozen = {name: weight.detach() for name, weight in self.model.named_parameters()}
        judged = functional_call(self.model, frozen, (decoded[:, 0],))[-1].float()
        loss: torch.Tensor = self._criterion(judged, target_is_real=True, for_discriminator=False)
        return loss

    def loss(self, decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """How badly it tells the two apart, both (N, 1, S, H, W); gives the VAE no gradient."""
        both: Any = self._network(torch.cat([decoded.detach(), target])[:, 0])[-1].float()
        false, real = both.chunk(2)
        of_false = self._criterion(false, target_is_real=False, for_discriminator=True)
        of_real = self._criterion(real, target_is_real=True, for_discriminator=True)
        loss: torch.Tensor = (of_false + of_real) / 2
        return loss
