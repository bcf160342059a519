"""From a batch of latents to a training example: noised latents, the network's other inputs, and the target.

Shape letters: B items, L latent channels, t latent frames, h and w latent height and width, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from vidlat.config import TrainConfig
from vidlat.train.data.dataset import Batch
from vidlat.train.data.seeding import Draw, generator
from vidlat.train.data.transfer import to_device
from vidlat.train.objectives.conditioning import Conditions
from vidlat.train.objectives.objective import OBJECTIVES, masked_squared_error
from vidlat.train.objectives.timesteps import Times, draw_times


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisedBatch:
    """The network's inputs, what it should predict, and which predictions count.

    inputs: (B, L, t, h, w), or with first-frame conditioning (B, 2 L + 1, t, h, w), see `join_first_frames`.
    timestep: (B,). features: (B, D), or None. target: (B, L, t, h, w). mask: (B, 1, t, 1, 1), 1 where a frame
    counts. weight: (B, 1, 1, 1, 1), of the errors of each item. span: (B,), of a mean flow, else None; its
    target is that of plain flow until `mean_flow.with_average_target`. has_span: whether each is above 0.
    """

    inputs: torch.Tensor
    timestep: torch.Tensor
    features: torch.Tensor | None
    target: torch.Tensor
    mask: torch.Tensor
    weight: torch.Tensor
    span: torch.Tensor | None = None
    has_span: tuple[bool, ...] = ()

    @property
    def arguments(self) -> tuple[torch.Tensor | None, ...]:
        """What the network is called with; the span only for networks that take one."""
        known = self.inputs, self.timestep, self.features
        return known if self.span is None else (*known, self.span)

    @property
    def num_counted(self) -> torch.Tensor:
        """Number of values of the target that count."""
        return self.mask.sum() * self.target[0, :, 0].numel()

    def split(self, num_parts: int) -> Iterator[NoisedBatch]:
        """Split by items into parts of the same size; num_parts divides the number of items."""
        size = len(self.inputs) // num_parts
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for start in range(0, len(self.inputs), size):
            part = slice(start, start + size)
            of_part: Any = {name: each if each is None else each[part] for name, each in values.items()}
            yield NoisedBatch(**of_part)

    def squared_error(self, prediction: torch.Tensor) -> torch.Tensor:
        """The weighted sum of squared errors over all values that count."""
        error, _ = masked_squared_error(prediction, self.target, self.mask, self.weight)
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What is random about a noised batch besides its noise, in host memory.

    timestep: (B,) float32. span: (B,) float32, of a mean flow, else None. first_frame_mask: (B,) bool,
    whether the first latent frames are given. condition_mask: (B, D) float32, 0 where a feature is dropped;
    None drops nothing.
    """

    timestep: torch.Tensor
    span: torch.Tensor | None
    first_frame_mask: torch.Tensor
    condition_mask: torch.Tensor | None


class Noising:
    """Makes noised batches according to a run's settings; every draw follows from the key of its item."""

    def __init__(self, settings: TrainConfig, conditions: Conditions) -> None:
        self._settings, self._conditions = settings, conditions
        self._objective = OBJECTIVES[settings.objective]

    def draws(self, batch: Batch, times: Sequence[Times] | None = None) -> Draws:
        """Draw timesteps, dropped conditions and given first frames as the settings say.

        times: those of a validation, which drops no condition and gives the first frame only if training
        always does.
        """
        settings, keys = self._settings, batch.keys
        first_frame_mask, condition_mask = [settings.first_frame == 1] * len(keys), None
        if times is None:
            times, dropout = [draw_times(key, settings) for key in keys], settings.condition_dropout
            first_frame_mask = [
                generator(key, Draw.FIRST_FRAME).random() < settings.first_frame for key in keys
            ]
            if batch.features is not None:
                masks = [self._conditions.draw_mask(generator(key, Draw.CONDITION), dropout) for key in keys]
                condition_mask = torch.from_numpy(np.stack(masks))
        return Draws(
            timestep=torch.tensor([each.timestep for each in times], dtype=torch.float32),
            span=torch.tensor([each.span for each in times]) if settings.takes_span else None,
            first_frame_mask=torch.tensor(first_frame_mask),
            condition_mask=condition_mask,
        )

    def noised(self, batch: Batch, draws: Draws, *, min_snr: float = 0.0) -> NoisedBatch:
        """Noise a batch that is on its device; min_snr: gamma of the loss weights, 0 for weights of 1.

        Raises ValueError for a batch without noise.
        """
        x0, noise, features, mask = batch.latents, batch.noise, batch.features, batch.mask
        if noise is None:
            raise ValueError("the batch holds no noise; make its dataset with_noise=True")
        has_span = () if draws.span is None else tuple((draws.span > 0).tolist())
        draws = to_device(draws, x0.device)
        alpha, sigma = self._objective.levels(draws.timestep)
        inputs = alpha * x0 + sigma * noise
        if self._settings.first_frame:
            # A given frame carries no loss, so it needs a second one that does.
            num_given = self._settings.first_frames
            is_given = draws.first_frame_mask.to(mask) * mask[:, 0, num_given, 0, 0]
            inputs, mask = join_first_frames(inputs, x0[:, :, :num_given], is_given), mask.clone()
            mask[:, 0, :num_given, 0, 0] *= 1 - is_given[:, None]
        if features is not None and draws.condition_mask is not None:
            features = features * draws.condition_mask.to(features)
        weight = self._objective.min_snr_weight(alpha, sigma, min_snr) if min_snr else torch.ones_like(alpha)
        return NoisedBatch(
            inputs=inputs,
            timestep=draws.timestep,
            features=features,
            target=self._objective.target(x0, noise, alpha, sigma),
            mask=mask,
            weight=weight,
            span=draws.span,
            has_span=has_span,
        )


def join_first_frames(
    noised: torch.Tensor, first_frames: torch.Tensor, is_given: torch.Tensor
) -> torch.Tensor:
    """The input of a network with first-frame conditioning, (B, 2 L + 1, t, h, w).

    first_frames: the first K of t latent frames, (B, L, K, h, w). is_given: (B,) of 0 and 1. The channels are
    the noised latents, in which given frames replace the noised ones; the given frames, zeros elsewhere; and
    the mask of the given frames. The noised ones must not be seen: predictions for them carry no loss, so a
    sampler leaves them undefined.
    """
    mask = torch.zeros_like(noised[:, :1])
    mask[:, :, : first_frames.shape[2]] = is_given.to(noised).view(-1, 1, 1, 1, 1)
    known = torch.zeros_like(noised)
    known[:, :, : first_frames.shape[2]] = first_frames
    known = known * mask
    return torch.cat([torch.where(mask == 1, known, noised), known, mask], dim=1)


def tangent_of(inputs: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
    """The derivative of a network's inputs by the timestep, where that of the latents is the velocity.

    0 in a given frame, and in the channels that `join_first_frames` adds.
    """
    if inputs.shape == velocity.shape:
        return velocity
    is_given = inputs[:, -1:]
    return torch.cat([velocity * (1 - is_given), torch.zeros_like(inputs[:, velocity.shape[1] :])], dim=1)
