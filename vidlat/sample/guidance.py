"""A trained network as a denoiser: with its condition, guidance and first frame, for clips of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidlat.train.objectives.noising import join_first_frames

Network = Callable[..., Tensor]
"""Inputs (B, C, t, h, w), timesteps (B,) and features (B, D), or None, to the prediction (B, L, t, h, w).

That of a mean flow takes spans (B,) too.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedDenoiser:
    """A `Denoiser` that calls the network of a run as it was trained.

    window: latent frames of a training clip. stride: latent frames between the starts of overlapping windows,
    in which longer clips are denoised. features: the condition, (D,) or (B, D); None where the network takes
    none. guidance: the classifier-free guidance scale (Ho and Salimans, https://arxiv.org/abs/2207.12598),
    which takes one call of the network with twice the items. guidance_interval: the lowest and highest
    timestep that is guided (Kynkaanniemi et al., https://arxiv.org/abs/2404.07724). The guided average
    velocity of a mean flow is that of the guided flow only as its span goes to 0.
    takes_first_frame: whether the network was trained with first-frame conditioning; it is then called with
    the whole clip. first_frames: the given first latent frames of each item, whitened (B, L, K, h, w), or
    None.
    """

    network: Network
    window: int
    stride: int
    features: Tensor | None = None
    guidance: float = 1.0
    guidance_interval: Sequence[float] = (0.0, 1.0)
    takes_first_frame: bool = False
    first_frames: Tensor | None = None

    def __call__(self, latents: Tensor, *times: Tensor) -> Tensor:
        """The prediction for noised latents (B, L, t, h, w), of their shape.

        times: the timesteps (B,), all the same, and for a mean flow the spans (B,).
        """
        if self.takes_first_frame:
            return self._guided(self._with_first_frames(latents), times)
        if latents.shape[2] <= self.window:
            return self._guided(latents, times)
        return self._blended(latents, times)

    def _with_first_frames(self, latents: Tensor) -> Tensor:
        first_frames, is_given = self.first_frames, latents.new_ones(len(latents))
        if first_frames is None:
            first_frames, is_given = torch.zeros_like(latents[:, :, :1]), torch.zeros_like(is_given)
        return join_first_frames(latents, first_frames, is_given)

    def _guided(self, inputs: Tensor, times: Sequence[Tensor]) -> Tensor:
        timestep, *span = times
        if self.features is None:
            return self.network(inputs, timestep, None, *span)
        features = self.features.to(inputs).expand(len(inputs), -1)
        if not self._is_guided(timestep):
            return self.network(inputs, timestep, features, *span)
        with_and_without = torch.cat([features, torch.zeros_like(features)])
        timestep, *span = (each.repeat(2) for each in times)
        both = self.network(inputs.repeat(2, 1, 1, 1, 1), timestep, with_and_without, *span)
        conditional, unconditional = both.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)

    def _is_guided(self, timestep: Tensor) -> bool:
        lowest, highest = self.guidance_interval
        if self.guidance == 1 or (lowest <= 0 and highest >= 1):
            return self.guidance != 1  # without waiting for a GPU
        return lowest <= float(timestep[0]) <= highest

    def _blended(self, latents: Tensor, times: Sequence[Tensor]) -> Tensor:
        """Predictions of overlapping windows, averaged with weights that fall towards a window's ends.

        At its ends a window sees one side only.
        """
        length = latents.shape[2]
        total, weight = torch.zeros_like(latents), latents.new_zeros(length, 1, 1)
        places = torch.arange(1, self.window + 1, device=latents.device, dtype=latents.dtype)
        share = torch.minimum(places, places.flip(0)).view(-1, 1, 1)
        for start in window_starts(length, self.window, self.stride):
            part = slice(start, start + self.window)
            total[:, :, part] += share * self._guided(latents[:, :, part], times)
            weight[part] += share
        blended: Tensor = total / weight
        return blended


def window_starts(length: int, window: int, stride: int) -> Iterator[int]:
    """Starts of windows that cover `length`: one every `stride`, and the last one at the end."""
    yield from range(0, length - window, stride)
    yield length - window
