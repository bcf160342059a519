"""Which timesteps are trained on, and which ones a sample passes through; all in [0, 1], 0 is data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from vidlat.config import TimestepDistribution

TimestepType = TypeVar("TimestepType", float, torch.Tensor)

_DISTRIBUTIONS: dict[TimestepDistribution, Callable[[np.random.Generator], float]] = {
    "uniform": lambda random: random.random(),
    "logit-normal": lambda random: 1 / (1 + math.exp(-random.standard_normal())),
}


def shift_timestep(timestep: TimestepType, shift: float) -> TimestepType:
    """Move a timestep towards the noise (shift > 1) or the data (shift < 1); 0 and 1 stay where they are.

    The same in training and in sampling: t' = shift t / (1 + (shift - 1) t), Esser et al.
    (https://arxiv.org/abs/2403.03206, equation 23).
    """
    return shift * timestep / (1 + (shift - 1) * timestep)


def draw_timestep(random: np.random.Generator, distribution: TimestepDistribution, shift: float) -> float:
    """Draw a training timestep: uniform, or the logistic function of a standard normal draw; then shifted."""
    return shift_timestep(_DISTRIBUTIONS[distribution](random), shift)


def sampling_timesteps(num_steps: int, shift: float = 1.0) -> torch.Tensor:
    """The num_steps + 1 timesteps from 1 (noise) to 0 (data): equally spaced, then shifted."""
    return shift_timestep(torch.linspace(1, 0, num_steps + 1), shift)
