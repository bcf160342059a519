"""A trained network as a sampler wants it: with its condition, guided, its start given, of any length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from vidlat.train.denoising import join_given
from vidlat.train.sampler import Model


def steer(
    network: nn.Module,
    *,
    window: int,
    stride: int,
    features: torch.Tensor | None = None,
    guidance: float = 1.0,
    takes_given: bool = False,
    is_given: bool = False,
) -> Model:
    """Latents (B, L, t, h, w) and timesteps (B,) to the prediction, of the latents' shape.

    window: latent frames of a training clip; longer latents are asked about in windows, one every `stride`,
    whose answers fade into each other. features: (D,), the condition. guidance: how far the answer goes from
    that without a condition to that with it, and beyond (Ho and Salimans, https://arxiv.org/abs/2207.12598):
    1 is with it. takes_given: whether the network was trained to go on from given frames, and is asked for
    one clip at a time. is_given: whether the first latent frame is, and not to be sampled.
    """

    def ask(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        inputs = latents
        if takes_given:
            which = torch.zeros_like(latents[:, :1, :, :1, :1])
            which[:, :, 0] = float(is_given)
            inputs = join_given(latents, latents, which)
        if features is None:
            answer: torch.Tensor = network(inputs, timestep, None)
            return answer
        asked = features.to(latents).expand(len(latents), -1)
        answer = network(inputs, timestep, asked).float()
        if guidance == 1:
            return answer
        free = network(inputs, timestep, torch.zeros_like(asked)).float()
        guided: torch.Tensor = free + guidance * (answer - free)
        return guided

    def model(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        length = latents.shape[2]
        if length <= window or takes_given:
            return ask(latents, timestep)
        total, weight = torch.zeros_like(latents), latents.new_zeros(length, 1, 1)
        # Least at a window's ends, where it sees one side alone.
        places = torch.arange(1, window + 1, device=latents.device, dtype=latents.dtype)
        share = torch.minimum(places, places.flip(0)).view(-1, 1, 1)
        for start in window_starts(length, window, stride):
            part = slice(start, start + window)
            total[:, :, part] += share * ask(latents[:, :, part], timestep)
            weight[part] += share
        faded: torch.Tensor = total / weight
        return faded

    return model


def window_starts(length: int, window: int, stride: int) -> Iterator[int]:
    """Where windows begin that cover `length`, one every `stride`, the last one at the end."""
    yield from range(0, length - window, stride)
    yield length - window
