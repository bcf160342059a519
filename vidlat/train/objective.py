"""What the network predicts: one class per objective, with its noise schedule and its conversions.

A timestep t lies in [0, 1]: t = 0 is data (x0), t = 1 is noise. The noised latents are

    x_t = alpha(t) * x0 + sigma(t) * noise

Signs and the direction of time are fixed here. In all methods alpha and sigma belong to the timestep of x_t
and broadcast against latents (B, L, t, h, w).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vidlat.errors import ConfigError

_FIRST_ANGLE = 0.008 / 1.008 * math.pi / 2
_ANGLE_RANGE = 0.999 / 1.008 * math.pi / 2
"""1 / 1.008 would reach alpha = 0, where a predicted epsilon no longer determines x0."""


class Objective(ABC):
    """A prediction target, its noise schedule, and the data, noise and velocity that a prediction implies."""

    @abstractmethod
    def alpha(self, timestep: Tensor) -> Tensor:
        """The factor of the data at each timestep, from 1 down to (almost) 0; of the same shape."""

    @abstractmethod
    def sigma(self, timestep: Tensor) -> Tensor:
        """The factor of the noise at each timestep, from 0 up to 1; of the same shape."""

    @abstractmethod
    def position(self, timestep: Tensor) -> Tensor:
        """The coordinate along the path of x_t by which `to_velocity` differentiates; of the same shape."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should predict for x_t."""

    @abstractmethod
    def to_x0(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that a prediction implies. Never clipped: whitened latents reach 4."""

    @abstractmethod
    def to_noise(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The noise that a prediction implies."""

    @abstractmethod
    def to_velocity(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The derivative of x_t by `position` that a prediction implies."""

    @abstractmethod
    def min_snr_weight(self, alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
        """The weight of a squared error that weighs the implied error of x0 by min(SNR, gamma).

        SNR = (alpha / sigma)^2; Hang et al. (https://arxiv.org/abs/2303.09556). Raises ConfigError for flow.
        """

    def levels(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of timesteps (B,) as (B, 1, 1, 1, 1), to multiply latents with."""
        column = timestep.view(-1, 1, 1, 1, 1)
        return self.alpha(column), self.sigma(column)


class Flow(Objective):
    """Flow matching along straight lines (https://arxiv.org/abs/2209.03003): predicts noise - x0.

    alpha + sigma = 1. The sign is that of diffusers' FlowMatchEulerDiscreteScheduler, dx_t/dt; MONAI's
    RFlowScheduler trains on the negative, x0 - noise, and calls it `v_prediction`.
    """

    def alpha(self, timestep: Tensor) -> Tensor:
        return 1 - timestep

    def sigma(self, timestep: Tensor) -> Tensor:
        return timestep

    def position(self, timestep: Tensor) -> Tensor:
        """The timestep itself."""
        return timestep

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise - x0

    def to_x0(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_t - sigma * prediction

    def to_noise(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_t + alpha * prediction

    def to_velocity(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return prediction

    def min_snr_weight(self, alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
        raise ConfigError(f"min_snr: got {gamma:g}; expected 0 with objective flow, which has no such weight")


class _Cosine(Objective):
    """The variance-preserving schedule: alpha^2 + sigma^2 = 1, x_t moves along a quarter circle.

    The cosine of Nichol and Dhariwal (https://arxiv.org/abs/2102.09672, equation 17).
    """

    def alpha(self, timestep: Tensor) -> Tensor:
        return (_FIRST_ANGLE + _ANGLE_RANGE * timestep).cos() / math.cos(_FIRST_ANGLE)

    def sigma(self, timestep: Tensor) -> Tensor:
        # sin(a + b) sin(a - b) = cos(b)^2 - cos(a)^2: sqrt(1 - alpha^2) would lose all digits near t = 0.
        turned = _ANGLE_RANGE * timestep
        squared = (2 * _FIRST_ANGLE + turned).sin() * turned.sin()
        return squared.sqrt() / math.cos(_FIRST_ANGLE)

    def position(self, timestep: Tensor) -> Tensor:
        """The angle on the circle, of which alpha is the cosine."""
        return torch.atan2(self.sigma(timestep), self.alpha(timestep))


class VPrediction(_Cosine):
    """Predicts v = alpha * noise - sigma * x0 (Salimans and Ho, https://arxiv.org/abs/2202.00512).

    The same v as in diffusers and in MONAI's DDPM scheduler.
    """

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * noise - sigma * x0

    def to_x0(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * x_t - sigma * prediction

    def to_noise(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma * x_t + alpha * prediction

    def to_velocity(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return prediction

    def min_snr_weight(self, alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) / (SNR + 1)."""
        return torch.minimum(alpha**2, gamma * sigma**2)


class Epsilon(_Cosine):
    """Predicts the noise (Ho et al., https://arxiv.org/abs/2006.11239)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def to_x0(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t - sigma * prediction) / alpha

    def to_noise(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return prediction

    def to_velocity(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (prediction - sigma * x_t) / alpha

    def min_snr_weight(self, alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) / SNR."""
        return torch.minimum(torch.ones_like(alpha), gamma * (sigma / alpha) ** 2)


OBJECTIVES: dict[str, type[Objective]] = {"flow": Flow, "v": VPrediction, "epsilon": Epsilon}
"""By the name in the settings."""


def objective_named(name: str) -> Objective:
    """The objective of a setting's name; raises ConfigError for an unknown one."""
    if name not in OBJECTIVES:
        raise ConfigError(f"objective: got {name!r}; expected one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]()


def masked_squared_error(
    prediction: Tensor, target: Tensor, mask: Tensor, weight: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """The sum of squared errors over the values whose frame counts, and the number of such values.

    The loss is their quotient over the whole batch, so a frame of a short video weighs no more than another.
    mask: (B, 1, t, 1, 1) of 0 and 1. weight: per item, (B, 1, 1, 1, 1); it does not change the number.
    """
    counted = mask.expand_as(target)
    return ((prediction.float() - target).square() * counted * weight).sum(), counted.sum()
