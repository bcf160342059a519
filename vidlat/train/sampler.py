"""From noise to latents along the deterministic path of the learnt flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from vidlat.config import Objective, Sampler
from vidlat.train.latents import Whitening
from vidlat.train.objective import to_noise, to_velocity, to_x0
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
    sampler: Sampler = "ddim",
    shift: float = 1.0,
    given: torch.Tensor | None = None,
    clip: int = 0,
    batch: int = 4,
    device: str | torch.device = "cpu",
    on_step: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """One sample for each seed: unwhitened float32 latents (N, L, t, h, w) on the CPU.

    shape: (L, t, h, w). shift: that of the training. Heun asks the network almost twice a step. given: (N, L,
    h, w), the whitened first latent frame of each, where it is not to be sampled; the model sees it in its
    place, see `steer`. Each sample starts from the noise of its own seed and clip, and every call of the
    model has `batch` items, the last one filled up: the other samples do not change it by a bit, and another
    `batch` by rounding alone.
    on_step: called after each step with the number of samples that took it.
    """
    scheduler, timesteps = NoiseScheduler(objective), sampling_timesteps(num_steps, shift)

    samples = []
    for start in range(0, len(seeds), batch):
        rows = [min(start + place, len(seeds) - 1) for place in range(batch)]
        num = min(batch, len(seeds) - start)
        first = None if given is None else given[rows].to(device)
        noise = np.stack([normal((seeds[row], Stream.SAMPLING, clip, 0), Draw.NOISE, shape) for row in rows])
        latents, predict = torch.from_numpy(noise).to(device), partial(_predict, model, first)
        for now, following in pairwise(timesteps.to(device)):
            latents = _STEPS[sampler](predict, scheduler, latents, now, following)
            on_step(num)
        samples.append(whitening.unwhiten(_begun_with(first, latents)[:num]).cpu())
    return torch.cat(samples)


def _predict(
    model: Model, first: torch.Tensor | None, latents: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    return model(_begun_with(first, latents), timestep.expand(len(latents))).float()


def _begun_with(first: torch.Tensor | None, latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, L, t, h, w) whose first frames are these, (B, L, h, w), where there are any."""
    return latents if first is None else torch.cat([first[:, :, None], latents[:, :, 1:]], dim=2)


def ddim_step(
    predict: Model,
    scheduler: NoiseScheduler,
    latents: torch.Tensor,
    now: torch.Tensor,
    following: torch.Tensor,
) -> torch.Tensor:
    """Keep the implied x0 and noise and mix them anew: DDIM with eta 0.

    https://arxiv.org/abs/2010.02502, equation 12. For flow it is the Euler step.
    """
    prediction = predict(latents, now)
    alpha, sigma = scheduler.levels(now)
    x0 = to_x0(scheduler.objective, prediction, latents, alpha, sigma)
    noise = to_noise(scheduler.objective, prediction, latents, alpha, sigma)
    alpha, sigma = scheduler.levels(following)
    return alpha * x0 + sigma * noise


def _velocity(
    predict: Model, scheduler: NoiseScheduler, latents: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    prediction = predict(latents, timestep)
    return to_velocity(scheduler.objective, prediction, latents, *scheduler.levels(timestep))


def euler_step(
    predict: Model,
    scheduler: NoiseScheduler,
    latents: torch.Tensor,
    now: torch.Tensor,
    following: torch.Tensor,
) -> torch.Tensor:
    length = scheduler.position(following) - scheduler.position(now)
    return latents + length * _velocity(predict, scheduler, latents, now)


def heun_step(
    predict: Model,
    scheduler: NoiseScheduler,
    latents: torch.Tensor,
    now: torch.Tensor,
    following: torch.Tensor,
) -> torch.Tensor:
    """An Euler step, taken again with the mean of the velocities at both ends; the last one only once.

    Karras et al. (https://arxiv.org/abs/2206.00364, algorithm 1): on data there is no noise to predict.
    """
    length = scheduler.position(following) - scheduler.position(now)
    velocity = _velocity(predict, scheduler, latents, now)
    reached = latents + length * velocity
    if following == 0:
        return reached
    return latents + length * (velocity + _velocity(predict, scheduler, reached, following)) / 2


_STEPS = {"ddim": ddim_step, "euler": euler_step, "heun": heun_step}
