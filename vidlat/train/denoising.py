"""One batch as the problem it sets the network: noised latents, and what should be said of them.

Shape letters: B items, L latent channels, t latent frames, h and w latent height and width, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Everything that is drawn for a problem, in the memory of the host and without torch.

    noise: (B, L, t, h, w) float32. timestep: (B,) float32. is_given: (B,), whether the first latent frame is.
    kept: (B, D) float32 of 0 and 1, the features that are told; None for all.
    """

    noise: np.ndarray
    timestep: np.ndarray
    is_given: np.ndarray
    kept: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Denoising:
    """Makes problems of batches, as a run's settings say; every draw follows from the item's key."""

    config: TrainConfig
    conditions: Conditions

    def training_draws(self, batch: Batch) -> Draws:
        """Timesteps drawn, conditions dropped and first frames given as the settings say."""
        config = self.config
        timesteps = [
            draw_timestep(generator(key, Draw.TIMESTEP), config.timesteps, config.shift) for key in batch.keys
        ]
        is_given = [
            config.first_frame > 0 and generator(key, Draw.GIVEN).random() < config.first_frame
            for key in batch.keys
        ]
        return self._draws(batch, timesteps, is_given, self._kept(batch))

    def validation_draws(self, batch: Batch, timesteps: Sequence[float]) -> Draws:
        """These timesteps, with every condition; the first frame given where training always gives it."""
        return self._draws(batch, timesteps, [self.config.first_frame == 1] * len(batch.keys), None)

    @staticmethod
    def _draws(
        batch: Batch, timesteps: Sequence[float], is_given: Sequence[bool], kept: np.ndarray | None
    ) -> Draws:
        shape = tuple(batch.latents.shape[1:])
        return Draws(
            noise=np.stack([normal(key, Draw.NOISE, shape) for key in batch.keys]),
            timestep=np.array(timesteps, np.float32),
            is_given=np.array(is_given),
            kept=kept,
        )

    def _kept(self, batch: Batch) -> np.ndarray | None:
        if batch.features is None:
            return None
        dropout = self.config.condition_dropout
        return np.stack([self.conditions.kept(generator(key, Draw.CONDITION), dropout) for key in batch.keys])

    def problem(self, batch: Batch, draws: Draws, *, min_snr: float = 0.0) -> Problem:
        """The problem that a batch, on its device, and its draws set; min_snr: 0 weighs nothing."""
        x0, objective = batch.latents, self.config.objective
        noise, timestep = (torch.from_numpy(d).to(x0.device) for d in (draws.noise, draws.timestep))
        alpha, sigma = NoiseScheduler(objective).levels(timestep)
        inputs, mask, features = alpha * x0 + sigma * noise, batch.mask, batch.features
        if self.config.first_frame:
            is_given = torch.zeros_like(mask)
            # Where nothing else counts, it would leave an item without a loss.
            is_given[:, :, 0] = torch.from_numpy(draws.is_given).to(mask).view(-1, 1, 1, 1) * mask[:, :, 1]
            inputs, mask = join_given(inputs, x0, is_given), mask * (1 - is_given)
        if features is not None and draws.kept is not None:
            features = features * torch.from_numpy(draws.kept).to(features)
        return Problem(
            inputs=inputs,
            timestep=timestep,
            features=features,
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
