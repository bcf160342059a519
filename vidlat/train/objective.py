"""What the network predicts, and every way back from it. Signs and the direction of time are fixed here.

A timestep t lies in [0, 1]: t = 0 is data (x0), t = 1 is noise. The noised latents are

    x_t = alpha(t) * x0 + sigma(t) * noise

objective   target of the network          scheduler.py sees to it that
flow        noise - x0                     alpha + sigma = 1
v           alpha * noise - sigma * x0     alpha^2 + sigma^2 = 1
epsilon     noise                          alpha^2 + sigma^2 = 1

`flow` has the sign of diffusers' FlowMatchEulerDiscreteScheduler (the velocity dx_t/dt as noise grows);
MONAI's RFlowScheduler trains on x0 - noise, the negative, and labels it `v_prediction`. `v` is that of
Salimans and Ho (https://arxiv.org/abs/2202.00512), of diffusers and of MONAI's DDPM scheduler alike.

In all functions alpha and sigma are of x_t's own timestep and broadcast against (B, L, t, h, w).
"""

from __future__ import annotations

import torch

from vidlat.config import Objective


def target(
    objective: Objective, x0: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """What the network should predict for x_t."""
    match objective:
        case "flow":
            return noise - x0
        case "v":
            return alpha * noise - sigma * x0
        case "epsilon":
            return noise


def to_x0(
    objective: Objective,
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
) -> torch.Tensor:
    """The data that a prediction implies; never clipped, latents reach 4."""
    match objective:
        case "flow":
            return x_t - sigma * prediction
        case "v":
            return alpha * x_t - sigma * prediction
        case "epsilon":
            return (x_t - sigma * prediction) / alpha


def to_noise(
    objective: Objective,
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
) -> torch.Tensor:
    """The noise that a prediction implies."""
    match objective:
        case "flow":
            return x_t + alpha * prediction
        case "v":
            return sigma * x_t + alpha * prediction
        case "epsilon":
            return prediction


def to_velocity(
    objective: Objective,
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
) -> torch.Tensor:
    """Which way and how fast x_t moves towards the noise: dx_t / d`NoiseScheduler.position`.

    noise - x0 along the straight lines of flow; v along the quarter circle of v and epsilon, where the
    position is the angle.
    """
    if objective == "epsilon":
        return (prediction - sigma * x_t) / alpha
    return prediction


def min_snr_weight(
    objective: Objective, alpha: torch.Tensor, sigma: torch.Tensor, gamma: float
) -> torch.Tensor:
    """The weight of a squared error that makes that of x0 min(SNR, gamma), SNR = (alpha / sigma)^2.

    Hang et al. (https://arxiv.org/abs/2303.09556): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v; flow
    has none. Of the levels' shape.
    """
    if objective == "v":
        return torch.minimum(alpha**2, gamma * sigma**2)
    return torch.minimum(torch.ones_like(alpha), gamma * (sigma / alpha) ** 2)


def masked_squared_error(
    prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor | float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of squared errors over the values whose frame counts, and the number of such values.

    The loss is their quotient over the whole batch: no frame weighs more for standing in a short video.
    mask: (B, 1, t, 1, 1) of 0 and 1. weight: of each item's errors, (B, 1, 1, 1, 1); it does not count.
    """
    counted = mask.expand_as(target)
    return ((prediction.float() - target).square() * counted * weight).sum(), counted.sum()
