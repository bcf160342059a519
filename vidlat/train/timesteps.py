"""The timesteps that training shows a network: how they are distributed, and how they are moved."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from vidlat.config import TimestepDistribution, TrainConfig
from vidlat.train.seeding import Draw, SeedKey, generator

TimestepType = TypeVar("TimestepType", float, torch.Tensor)


class Times(NamedTuple):
    """A timestep t, and the span t - r down to the earlier timestep r that a mean flow is averaged over."""

    timestep: float
    span: float = 0.0


def draw_times(key: SeedKey, settings: TrainConfig) -> Times:
    """Draw the timestep of a training item, with objective mean-flow its span too.

    A share of the items of a mean flow has span 0, as in plain flow; the timesteps of the others are two
    draws, sorted (Geng et al., https://arxiv.org/abs/2505.13447, section 4.3).
    """
    timestep = draw_timestep(generator(key, Draw.TIMESTEP), settings.timesteps, settings.shift)
    random = generator(key, Draw.SPAN)
    if settings.objective != "mean-flow" or random.random() < settings.plain_flow:
        return Times(timestep)
    other = draw_timestep(random, settings.timesteps, settings.shift)
    return Times(max(timestep, other), abs(timestep - other))


def draw_timestep(random: np.random.Generator, distribution: TimestepDistribution, shift: float) -> float:
    """Draw a training timestep: uniform, or the logistic function of a standard normal draw; then shifted."""
    if distribution == "uniform":
        return shift_timestep(random.random(), shift)
    return shift_timestep(1 / (1 + math.exp(-random.standard_normal())), shift)


def shift_timestep(timestep: TimestepType, shift: float) -> TimestepType:
    """Move a timestep towards the noise (shift > 1) or the data (shift < 1); 0 and 1 stay where they are.

    The same in training and in sampling: t' = shift t / (1 + (shift - 1) t), Esser et al.
    (https://arxiv.org/abs/2403.03206, equation 23).
    """
    return shift * timestep / (1 + (shift - 1) * timestep)


def validation_times(num: int, *, with_span: bool) -> list[Times]:
    """The times of a validation: timesteps spread evenly; with_span: every second one has a span.

    Spans are spread evenly from 0 to the timestep, by multiples of the golden ratio, so that they do not
    depend on the timestep.
    """
    timesteps = [(index + 0.5) / num for index in range(num)]
    if not with_span:
        return [Times(timestep) for timestep in timesteps]
    golden = (math.sqrt(5) - 1) / 2
    return [Times(t, t * (index // 2 * golden % 1) * (index % 2)) for index, t in enumerate(timesteps)]
