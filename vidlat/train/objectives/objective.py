"""What the network predicts: one class per objective, with its noise schedule and its conversions.

A timestep t lies in [0, 1]: t = 0 is data (x0), t = 1 is noise. The noised latents (B, L, t, h, w) are

    x_t = alpha(t) * x0 + sigma(t) * noise

Signs and the direction of time are fixed here. Every objective has these methods:

    levels          of timesteps (B,): alpha, from 1 down to (almost) 0, and sigma, from 0 up to 1
    position        of timesteps (B,): the coordinate on the path of x_t by which `to_velocity` differentiates
    target          what the network should predict for x_t
    to_x0           the data that a prediction implies; never clipped: whitened latents reach 4
    to_noise        the noise that a prediction implies
    to_velocity     the derivative of x_t by `position` that a prediction implies
    min_snr_weight  the weight of a squared error that weighs the implied error of x0 by min(SNR, gamma),
                    SNR = (alpha / sigma)^2; Hang et al. (https://arxiv.org/abs/2303.09556)

Levels and positions are (B, 1, 1, 1, 1), to multiply latents with. Arguments alpha and sigma belong to the
timestep of x_t and broadcast against it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vidlat.errors import ConfigError

_FIRST_ANGLE = 0.008 / 1.008 * math.pi / 2
_ANGLE_RANGE = 0.999 / 1.008 * math.pi / 2
"""1 / 1.008 would reach alpha = 0, where a predicted epsilon no longer determines x0."""


class Flow:
    """Flow matching along straight lines (https://arxiv.org/abs/2209.03003): predicts noise - x0.

    alpha + sigma = 1; the position is the timestep. The sign is that of diffusers'
    FlowMatchEulerDiscreteScheduler, dx_t/dt; MONAI's RFlowScheduler trains on the negative, x0 - noise, and
    calls it `v_prediction`.
    """

    def levels(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.position(timestep)
        return 1 - sigma, sigma

    def position(self, timestep: Tensor) -> Tensor:
        return timestep.view(-1, 1, 1, 1, 1)

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise - x0

    def to_x0(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_t - sigma * prediction

    def to_noise(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_t + alpha * prediction

    def to_velocity(self, prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return prediction

    def min_snr_weight(self, alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
        """Raises ConfigError: there is none."""
        raise ConfigError(f"min_snr: got {gamma:g}; expected 0 with flow and mean-flow, which have none")


class MeanFlow(Flow):
    """The average velocity between two timesteps (Geng et al., https://arxiv.org/abs/2505.13447).

    u(x_t, r, t) is the mean of flow's velocity v along the path from x_r to x_t, so one step covers the span
    t - r: x_r = x_t - (t - r) u. The network is told the span beside t; at span 0, u is v. The conversions
    are flow's: they hold where a sampler's step ends at r (see mean_flow.py for the target of longer spans).
    """


class _Cosine:
    """The variance-preserving schedule: alpha^2 + sigma^2 = 1, x_t moves along a quarter circle.

    The cosine of Nichol and Dhariwal (https://arxiv.org/abs/2102.09672, equation 17). The position is the
    angle on the circle, of which alpha is the cosine.
    """

    def levels(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        turned = _ANGLE_RANGE * timestep.view(-1, 1, 1, 1, 1)
        alpha = (_FIRST_ANGLE + turned).cos() / math.cos(_FIRST_ANGLE)
        # sin(a + b) sin(a - b) = cos(b)^2 - cos(a)^2: sqrt(1 - alpha^2) would lose all digits near t = 0.
        squared = (2 * _FIRST_ANGLE + turned).sin() * turned.sin()
        return alpha, squared.sqrt() / math.cos(_FIRST_ANGLE)

    def position(self, timestep: Tensor) -> Tensor:
        alpha, sigma = self.levels(timestep)
        return torch.atan2(sigma, alpha)


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


Objective = Flow | MeanFlow | VPrediction | Epsilon

OBJECTIVES: dict[str, Objective] = {
    "flow": Flow(),
    "mean-flow": MeanFlow(),
    "v": VPrediction(),
    "epsilon": Epsilon(),
}
"""By the name in the settings."""


def masked_squared_error(
    prediction: Tensor, target: Tensor, mask: Tensor, weight: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """The sum of squared errors over the values whose frame counts, and the number of such values.

    The loss is their quotient over the whole batch, so a frame of a short video weighs no more than another.
    mask: (B, 1, t, 1, 1) of 0 and 1. weight: per item, (B, 1, 1, 1, 1); it does not change the number.
    """
    counted = mask.expand_as(target)
    return ((prediction.float() - target).square() * counted * weight).sum(), counted.sum()
