"""From noise to latents: deterministic steps along the path that an objective has learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vidlat.errors import ConfigError
from vidlat.train.data.seeding import Draw, Stream, normal
from vidlat.train.objectives.objective import MeanFlow, Objective
from vidlat.train.objectives.timesteps import shift_timestep

Denoiser = Callable[..., Tensor]
"""Noised latents (B, L, t, h, w) and timesteps (B,) to the objective's prediction, of the latents' shape.

That of a mean flow takes the spans (B,) of its steps too.
"""

NUM_STEPS, NUM_MEAN_FLOW_STEPS = 50, 4
"""Steps of a sample, unless a number is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How samples are computed: the method of a step (ddim, euler or heun) and the timesteps.

    A mean flow has a step of its own, `average_step`, in place of ddim and euler. shift: the one the network
    was trained with. Raises ConfigError for an unknown method, or for heun with a mean flow.
    """

    objective: Objective
    method: str = "ddim"
    num_steps: int = NUM_STEPS
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in STEPS:
            raise ConfigError(f"sampler: got {self.method!r}; expected one of {', '.join(STEPS)}")
        if isinstance(self.objective, MeanFlow) and self.method == "heun":
            raise ConfigError(
                "sampler: got heun, which averages velocities; a mean flow predicts their average already, "
                "so leave it out"
            )

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, noise: Tensor, on_step: Callable[[], None] = lambda: None) -> Tensor:
        """Turn noise (B, L, t, h, w) into whitened latents of the same shape, on the same device.

        heun calls the denoiser twice per step, but once in the last. on_step: called after each step.
        """
        latents, (step, last_step) = noise, STEPS[self.method]
        if isinstance(self.objective, MeanFlow):
            step = last_step = average_step
        steps = [step] * (self.num_steps - 1) + [last_step]
        timesteps = sampling_timesteps(self.num_steps, self.shift).to(noise.device)
        for take_step, (now, following) in zip(steps, pairwise(timesteps), strict=True):
            latents = take_step(denoiser, self.objective, latents, now, following)
            on_step()
        return latents


def num_steps_for(objective: Objective, asked: int | None) -> int:
    """The number of steps that was asked for, or else one that suits the objective."""
    return asked or (NUM_MEAN_FLOW_STEPS if isinstance(objective, MeanFlow) else NUM_STEPS)


def sampling_timesteps(num_steps: int, shift: float = 1.0) -> Tensor:
    """The num_steps + 1 timesteps from 1 (noise) to 0 (data): equally spaced, then shifted."""
    return shift_timestep(torch.linspace(1, 0, num_steps + 1), shift)


def sampling_noise(
    seeds: Sequence[int], shape: tuple[int, int, int, int], clip: int = 0, attempt: int = 0
) -> Tensor:
    """Standard normal noise (N, L, t, h, w) float32; each depends on its seed, clip and attempt alone."""
    return torch.from_numpy(
        np.stack([normal((s, Stream.SAMPLING, clip, attempt), Draw.NOISE, shape) for s in seeds])
    )


def ddim_step(
    denoiser: Denoiser, objective: Objective, latents: Tensor, now: Tensor, following: Tensor
) -> Tensor:
    """Mix the implied x0 and noise anew: DDIM with eta 0; for flow the same as Euler's step.

    Song et al. (https://arxiv.org/abs/2010.02502, equation 12).
    """
    alpha, sigma = objective.levels(now)
    prediction = _predict(denoiser, latents, now)
    x0 = objective.to_x0(prediction, latents, alpha, sigma)
    noise = objective.to_noise(prediction, latents, alpha, sigma)
    alpha, sigma = objective.levels(following)
    return alpha * x0 + sigma * noise


def euler_step(
    denoiser: Denoiser, objective: Objective, latents: Tensor, now: Tensor, following: Tensor
) -> Tensor:
    """Follow the velocity at `now` as far as `following`."""
    length = objective.position(following) - objective.position(now)
    return latents + length * _velocity(denoiser, objective, latents, now)


def heun_step(
    denoiser: Denoiser, objective: Objective, latents: Tensor, now: Tensor, following: Tensor
) -> Tensor:
    """Follow the mean of the velocities at both ends of an Euler step, which must not end at timestep 0.

    Karras et al. (https://arxiv.org/abs/2206.00364, algorithm 1): there, no noise is left to predict.
    """
    length = objective.position(following) - objective.position(now)
    velocity = _velocity(denoiser, objective, latents, now)
    reached = latents + length * velocity
    return latents + length * (velocity + _velocity(denoiser, objective, reached, following)) / 2


def average_step(
    denoiser: Denoiser,
    objective: Objective,  # noqa: ARG001
    latents: Tensor,
    now: Tensor,
    following: Tensor,
) -> Tensor:
    """Follow the average velocity from `now` to `following`, which is exact however far they are apart.

    Geng et al. (https://arxiv.org/abs/2505.13447, equation 12).
    """
    span = now - following
    return latents - span * _predict(denoiser, latents, now, span)


STEPS = {
    "ddim": (ddim_step, ddim_step),
    "euler": (euler_step, euler_step),
    "heun": (heun_step, euler_step),
}
"""The step of each method, from latents at timestep `now` to those at `following`, and its last step."""


def _predict(denoiser: Denoiser, latents: Tensor, *times: Tensor) -> Tensor:
    return denoiser(latents, *(time.expand(len(latents)) for time in times)).float()


def _velocity(denoiser: Denoiser, objective: Objective, latents: Tensor, timestep: Tensor) -> Tensor:
    prediction = _predict(denoiser, latents, timestep)
    return objective.to_velocity(prediction, latents, *objective.levels(timestep))
