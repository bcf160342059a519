"""One batch as the problem it sets the network: noised latents, and what should be said of them.

Shape letters: B items, L latent channels, t latent frames, h and w latent height and width, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from vidlat.config import TrainConfig
from vidlat.train.conditioning import Conditions
from vidlat.train.dataset import Batch
from vidlat.train.objective import masked_squared_error, min_snr_weight, target
from vidlat.train.scheduler import NoiseScheduler, draw_timestep
from vidlat.train.seeding import Draw, generator, normal


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What the network is asked, and what it should answer.

    inputs: (B, L, t, h, w), or with given frames (B, 2 L + 1, t, h, w), see `join_given`. timestep: (B,).
    features: (B, D), or None. target: (B, L, t, h, w). mask: (B, 1, t, 1, 1), 1 where a frame counts.
    weight: (B, 1, 1, 1, 1), of an item's errors.
    """

    inputs: torch.Tensor
    timestep: torch.Tensor
    features: torch.Tensor | None
    target: torch.Tensor
    mask: torch.Tensor
    weight: torch.Tensor

    @property
    def num_counted(self) -> torch.Tensor:
        """Values of the target that count."""
        return self.mask.sum() * self.target[0, :, 0].numel()

    def split(self, num_parts: int) -> Iterator[Problem]:
        """Into parts of as many items, or almost."""
        for rows in torch.arange(len(self.inputs)).tensor_split(num_parts):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            yield Problem(
                inputs=self.inputs[part],
                timestep=self.timestep[part],
                features=None if self.features is None else self.features[part],
                target=self.target[part],
                mask=self.mask[part],
                weight=self.weight[part],
            )

    def squared_error(self, prediction: torch.Tensor) -> torch.Tensor:
        """The weighted sum of squared errors over all values that count."""
        error, _ = masked_squared_error(prediction, self.target, self.mask, self.weight)
        return error


@dataclass(frozen=True, slots=True)
class Denoising:
    """Makes problems of batches, as a run's settings say; every draw follows from the item's key."""

    config: TrainConfig
    conditions: Conditions

    def training_problem(self, batch: Batch) -> Problem:
        """At timesteps drawn, conditions dropped and first frames given as the settings say."""
        config = self.config
        timesteps = [
            draw_timestep(generator(key, Draw.TIMESTEP), config.timesteps, config.shift) for key in batch.keys
        ]
        given = [
            config.animate > 0 and generator(key, Draw.GIVEN).random() < config.animate for key in batch.keys
        ]
        return self._problem(self._dropped(batch), timesteps, given, config.min_snr)

    def validation_problem(self, batch: Batch, timesteps: list[float]) -> Problem:
        """At these timesteps, with every condition, every error weighing the same.

        The first frame is given where training always gives it.
        """
        given = [self.config.animate == 1] * len(batch.keys)
        return self._problem(batch, timesteps, given, 0.0)

    def _dropped(self, batch: Batch) -> Batch:
        """The batch with some conditions lost."""
        if batch.features is None:
            return batch
        dropout = self.config.condition_dropout
        kept = [self.conditions.kept(generator(key, Draw.CONDITION), dropout) for key in batch.keys]
        return replace(batch, features=batch.features * torch.from_numpy(np.stack(kept)).to(batch.features))

    def _problem(self, batch: Batch, timesteps: list[float], given: list[bool], min_snr: float) -> Problem:
        x0, objective = batch.latents, self.config.objective
        drawn = np.stack([normal(key, Draw.NOISE, tuple(x0.shape[1:])) for key in batch.keys])
        noise = torch.from_numpy(drawn).to(x0.device)
        timestep = torch.tensor(timesteps, dtype=torch.float32, device=x0.device)
        alpha, sigma = NoiseScheduler(objective).levels(timestep)
        inputs, mask = alpha * x0 + sigma * noise, batch.mask
        if self.config.animate:
            is_given = torch.zeros_like(mask)
            # Where nothing else counts, it would leave an item without a loss.
            is_given[:, :, 0] = x0.new_tensor(given).view(-1, 1, 1, 1) * mask[:, :, 1]
            inputs, mask = join_given(inputs, x0, is_given), mask * (1 - is_given)
        return Problem(
            inputs=inputs,
            timestep=timestep,
            features=batch.features,
            target=target(objective, x0, noise, alpha, sigma),
            mask=mask,
            weight=min_snr_weight(objective, alpha, sigma, min_snr) if min_snr else torch.ones_like(alpha),
        )


def join_given(noised: torch.Tensor, latents: torch.Tensor, is_given: torch.Tensor) -> torch.Tensor:
    """A network's input where frames may be given: (B, 2 L + 1, t, h, w).

    Noised latents, then those that are given and zeros for the others, then which: `is_given`, (B, 1, t, 1,
    1) of 0 and 1. A given frame is shown as it is among the noised ones too: the network's answer for it
    carries no loss, and where that would lead must not be seen.
    """
    known, which = latents * is_given, is_given.expand(-1, -1, -1, *latents.shape[-2:])
    return torch.cat([noised * (1 - is_given) + known, known, which], dim=1)
