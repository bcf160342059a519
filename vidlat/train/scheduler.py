"""The noise scheduler: how much data and how much noise there is at a timestep in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from vidlat.config import Objective, TimestepDistribution

TimestepType = TypeVar("TimestepType", float, torch.Tensor)

_FIRST_ANGLE = 0.008 / 1.008 * math.pi / 2
_ANGLE_RANGE = 0.999 / 1.008 * math.pi / 2
"""A whole course would be 1 / 1.008; just before its end alpha is not 0, and epsilon still tells an x0."""


@dataclass(frozen=True, slots=True)
class NoiseScheduler:
    """alpha and sigma of `x_t = alpha * x0 + sigma * noise`; t = 0 is data, t = 1 is noise.

    flow: straight lines, 1 - t and t (https://arxiv.org/abs/2209.03003). v and epsilon: the
    variance-preserving cosine of Nichol and Dhariwal (https://arxiv.org/abs/2102.09672, equation 17).
    """

    objective: Objective

    def alpha(self, timestep: torch.Tensor) -> torch.Tensor:
        """The data's share at each timestep, from 1 down to (almost) 0; the same shape."""
        if self.objective == "flow":
            return 1 - timestep
        return (_FIRST_ANGLE + _ANGLE_RANGE * timestep).cos() / math.cos(_FIRST_ANGLE)

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The noise's share at each timestep, from 0 up to 1; the same shape."""
        if self.objective == "flow":
            return timestep
        # sin(a + b) sin(a - b) = cos(b)^2 - cos(a)^2: sqrt(1 - alpha^2) would lose all digits near t = 0.
        turned = _ANGLE_RANGE * timestep
        squared = (2 * _FIRST_ANGLE + turned).sin() * turned.sin()
        return squared.sqrt() / math.cos(_FIRST_ANGLE)

    def position(self, timestep: torch.Tensor) -> torch.Tensor:
        """How far along its path x_t is: the timestep for flow; else the angle of which alpha is the cosine.

        Along it x_t moves with `objective.to_velocity`, however alpha and sigma follow the timestep.
        """
        if self.objective == "flow":
            return timestep
        return torch.atan2(self.sigma(timestep), self.alpha(timestep))

    def levels(self, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha and sigma of timesteps (B,) as (B, 1, 1, 1, 1), to multiply latents with."""
        column = timestep.view(-1, 1, 1, 1, 1)
        return self.alpha(column), self.sigma(column)


def shift_timestep(timestep: TimestepType, shift: float) -> TimestepType:
    """A timestep moved towards the noise (shift > 1) or the data (< 1); 0 and 1 stay, 1.0 moves none.

    The same in training and in sampling: t' = shift t / (1 + (shift - 1) t), that of Esser et al.
    (https://arxiv.org/abs/2403.03206, equation 23), its parameter given as it is.
    """
    return shift * timestep / (1 + (shift - 1) * timestep)


def draw_timestep(random: np.random.Generator, distribution: TimestepDistribution, shift: float) -> float:
    """A training timestep: uniform, or the logistic function of a standard normal number; then shifted."""
    drawn = random.random() if distribution == "uniform" else 1 / (1 + math.exp(-random.standard_normal()))
    return shift_timestep(drawn, shift)


def sampling_timesteps(num_steps: int, shift: float = 1.0) -> torch.Tensor:
    """The num_steps + 1 timesteps from 1 (noise) to 0 (data): equally spaced, then shifted."""
    return shift_timestep(torch.linspace(1, 0, num_steps + 1), shift)
