"""The timesteps that training shows a network: how they are distributed, and how they are moved."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import torch

from vidlat.config import TimestepDistribution, TrainConfig
from vidlat.train.data.seeding import Draw, SeedKey, generator

TimestepType = TypeVar("TimestepType", float, torch.Tensor)


class Times(NamedTuple):
    """A timestep t, and the span t - r down to the earlier timestep r that a mean flow is averaged over."""

    timestep: float
    span: float = 0.0


DRAWS_VERSION = 2
"""Raised whenever the same seed would give a training other draws. Version 1 drew timesteps independently."""

_SMALLEST = 2**-53
_GOLDEN, _SILVER = (math.sqrt(5) - 1) / 2, math.sqrt(2) - 1
"""Multiples of these, modulo 1, are spread evenly however many there are, and independently of each other."""


def draw_times(key: SeedKey, settings: TrainConfig) -> Times:
    """Draw the timestep of a training item, with objective mean-flow its span too.

    The timesteps of a step are stratified: of `batch` equally likely intervals each has one, that of the
    item's index, so the loss of a step varies less (as in Kingma et al., https://arxiv.org/abs/2107.00630).
    A share of the items of a mean flow has span 0, as in plain flow; the timesteps of the others are two
    draws, sorted (Geng et al., https://arxiv.org/abs/2505.13447, section 4.3).
    """
    place = (key[-1] + generator(key, Draw.TIMESTEP).random()) / settings.batch
    timestep = timestep_at(place, settings.timesteps, settings.shift)
    random = generator(key, Draw.SPAN)
    if not settings.takes_span or random.random() < settings.plain_flow:
        return Times(timestep)
    return _between(timestep, timestep_at(random.random(), settings.timesteps, settings.shift))


def _between(one: float, other: float) -> Times:
    return Times(max(one, other), abs(one - other))


def timestep_at(place: float, distribution: TimestepDistribution, shift: float) -> float:
    """The timestep below which a share `place` of the training timesteps lies, their quantile.

    They are uniform, or the logistic function of a standard normal variable; then shifted.
    """
    if distribution == "uniform":
        return shift_timestep(place, shift)
    normal = NormalDist().inv_cdf(min(max(place, _SMALLEST), 1 - _SMALLEST))
    return shift_timestep(1 / (1 + math.exp(-normal)), shift)


def shift_timestep(timestep: TimestepType, shift: float) -> TimestepType:
    """Move a timestep towards the noise (shift > 1) or the data (shift < 1); 0 and 1 stay where they are.

    The same in training and in sampling: t' = shift t / (1 + (shift - 1) t), Esser et al.
    (https://arxiv.org/abs/2403.03206, equation 23).
    """
    return shift * timestep / (1 + (shift - 1) * timestep)


def validation_times(num: int, settings: TrainConfig) -> list[Times]:
    """The times of a validation: timesteps spread evenly; of a mean flow every second one has a span.

    Spans are spread evenly from 0 to the timestep.
    """
    timesteps = [(index + 0.5) / num for index in range(num)]
    if not settings.takes_span:
        return [Times(timestep) for timestep in timesteps]
    return [Times(t, t * (index // 2 * _GOLDEN % 1) * (index % 2)) for index, t in enumerate(timesteps)]


def validation_times_as_trained(num: int, settings: TrainConfig) -> list[Times]:
    """Times that are distributed as those of the training, the same in every validation."""
    places = [(index + 0.5) / num for index in range(num)]
    timesteps = [timestep_at(place, settings.timesteps, settings.shift) for place in places]
    if not settings.takes_span:
        return [Times(timestep) for timestep in timesteps]
    return [
        Times(timestep)
        if index * _GOLDEN % 1 < settings.plain_flow
        else _between(timestep, timestep_at(index * _SILVER % 1, settings.timesteps, settings.shift))
        for index, timestep in enumerate(timesteps)
    ]
