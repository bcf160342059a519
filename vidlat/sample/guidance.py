"""A trained network as a denoiser: with its condition, guidance and first frame, for clips of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vidlat.train.noising import join_first_frame

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Inputs (B, C, t, h, w), timesteps (B,) and features (B, D), or None, to the prediction (B, L, t, h, w)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedDenoiser:
    """A `Denoiser` that calls the network of a run as it was trained.

    window: latent frames of a training clip. stride: latent frames between the starts of overlapping windows,
    in which longer clips are denoised. features: the condition, (D,) or (B, D); None where the network takes
    none. guidance: the classifier-free guidance scale (Ho and Salimans, https://arxiv.org/abs/2207.12598),
    which takes one call of the network with twice the items.
    takes_first_frame: whether the network was trained with first-frame conditioning; it is then called with
    the whole clip. first_frame: the given first latent frame of each item, whitened (B, L, h, w), or None.
    """

    network: Network
    window: int
    stride: int
    features: Tensor | None = None
    guidance: float = 1.0
    takes_first_frame: bool = False
    first_frame: Tensor | None = None

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The prediction for noised latents (B, L, t, h, w) at timesteps (B,), of the latents' shape."""
        if self.takes_first_frame:
            return self._guided(self._with_first_frame(latents), timestep)
        if latents.shape[2] <= self.window:
            return self._guided(latents, timestep)
        return self._blended(latents, timestep)

    def _with_first_frame(self, latents: Tensor) -> Tensor:
        first_frame, is_given = self.first_frame, latents.new_ones(len(latents))
        if first_frame is None:
            first_frame, is_given = torch.zeros_like(latents[:, :, 0]), torch.zeros_like(is_given)
        return join_first_frame(latents, first_frame, is_given)

    def _guided(self, inputs: Tensor, timestep: Tensor) -> Tensor:
        if self.features is None:
            return self.network(inputs, timestep, None)
        features = self.features.to(inputs).expand(len(inputs), -1)
        if self.guidance == 1:
            return self.network(inputs, timestep, features)
        with_and_without = torch.cat([features, torch.zeros_like(features)])
        both = self.network(inputs.repeat(2, 1, 1, 1, 1), timestep.repeat(2), with_and_without)
        conditional, unconditional = both.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)

    def _blended(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Predictions of overlapping windows, averaged with weights that fall towards a window's ends.

        At its ends a window sees one side only.
        """
        length = latents.shape[2]
        total, weight = torch.zeros_like(latents), latents.new_zeros(length, 1, 1)
        places = torch.arange(1, self.window + 1, device=latents.device, dtype=latents.dtype)
        share = torch.minimum(places, places.flip(0)).view(-1, 1, 1)
        for start in window_starts(length, self.window, self.stride):
            part = slice(start, start + self.window)
            total[:, :, part] += share * self._guided(latents[:, :, part], timestep)
            weight[part] += share
        blended: Tensor = total / weight
        return blended


def window_starts(length: int, window: int, stride: int) -> Iterator[int]:
    """Starts of windows that cover `length`: one every `stride`, and the last one at the end."""
    yield from range(0, length - window, stride)
    yield length - window
