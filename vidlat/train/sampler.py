"""From noise to latents along the deterministic path of the learnt flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

from vidlat.config import Objective
from vidlat.train.latents import Whitening
from vidlat.train.objective import to_noise, to_x0
from vidlat.train.scheduler import NoiseScheduler, sampling_timesteps
from vidlat.train.seeding import Draw, Stream, normal

Model = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Latents (B, L, t, h, w) and timesteps (B,) to the objective's prediction, of the latents' shape."""


@torch.no_grad()
def sample_latents(
    model: Model,
    *,
    objective: Objective,
    whitening: Whitening,
    shape: tuple[int, int, int, int],
    seeds: Sequence[int],
    num_steps: int = 50,
    batch: int = 4,
    device: str | torch.device = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """One sample for each seed: unwhitened float32 latents (N, L, t, h, w) on the CPU.

    shape: (L, t, h, w). Each sample starts from the noise of its own seed, so neither `batch` nor the other
    samples change it. on_step: called after each step with the number of samples that took it.
    """
    samples = []
    for start in range(0, len(seeds), batch):
        keys = [(seed, Stream.SAMPLING, 0, 0) for seed in seeds[start : start + batch]]
        noise = np.stack([normal(key, Draw.NOISE, shape) for key in keys])
        latents = torch.from_numpy(noise).to(device)
        latents = _denoise(model, objective, latents, num_steps, on_step)
        samples.append(whitening.unwhiten(latents).cpu())
    return torch.cat(samples)


def _denoise(
    model: Model,
    objective: Objective,
    latents: torch.Tensor,
    num_steps: int,
    on_step: Callable[[int], None] | None,
) -> torch.Tensor:
    """Keep the implied x0 and noise and mix them anew for each next timestep.

    For v and epsilon that is DDIM with eta 0 (https://arxiv.org/abs/2010.02502, equation 12); for flow it is
    the Euler step `x + (s - t) * prediction`.
    """
    scheduler = NoiseScheduler(objective)
    timesteps = sampling_timesteps(num_steps).to(latents.device)
    for now, following in pairwise(timesteps):
        prediction = model(latents, now.expand(len(latents))).float()
        alpha, sigma = scheduler.levels(now)
        x0 = to_x0(objective, prediction, latents, alpha, sigma)
        noise = to_noise(objective, prediction, latents, alpha, sigma)
        alpha, sigma = scheduler.levels(following)
        latents = alpha * x0 + sigma * noise
        if on_step is not None:
            on_step(len(latents))
    return latents
