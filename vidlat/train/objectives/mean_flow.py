"""What an average velocity is trained on: the mean-flow identity, and the weight of its errors.

The average velocity u(x_t, r, t) is the mean of the velocity v along the path from x_r to x_t. The derivative
of (t - r) u by t, with r held, gives the identity

    u = v - (t - r) du/dt,    du/dt = v . grad_x u + d_t u

of Geng et al. (https://arxiv.org/abs/2505.13447, equations 6 and 8). Its right side, with the network's own
du/dt and without gradient, is the target. Forward-mode differentiation gives du/dt beside u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vidlat.train.data.transfer import tensor_to_device
from vidlat.train.objectives.noising import NoisedBatch, tangent_of

Forward = Callable[..., Tensor]
"""A network that takes inputs, timestep, features and span."""

WEIGHT_POWER, WEIGHT_OFFSET = 0.5, 1e-3
"""p and c of the adaptive weight 1 / (error + c)^p (Geng et al., section 4.3, where p is 1).

With p = 1 an item's gradient grows as its error falls, so items that are learnt already, such as the plain
flow of a network that is distilled, drown the others. With 0.5 items weigh alike.
"""


@torch.no_grad()
def with_average_target(forward: Forward, noised: NoisedBatch, *, own_tangent: bool = False) -> NoisedBatch:
    """The same batch, with the target of the average velocity in place of that of plain flow.

    forward: of the network alone, neither compiled nor distributed. Items without a span keep their target
    and cost nothing.
    own_tangent: differentiate along the network's own velocity, u at span 0, in place of noise - x0. Then
    u - target is the error of u + (t - r) du/dt, a velocity that knows x_t alone. Its mean square is lowest
    for the right u, so networks can be compared by it (Geng et al., https://arxiv.org/abs/2512.02012).
    """
    rows = [row for row, has_span in enumerate(noised.has_span) if has_span]
    if noised.span is None or not rows:
        return noised
    index = tensor_to_device(torch.tensor(rows), noised.target.device)
    inputs, timestep, span = (each[index] for each in (noised.inputs, noised.timestep, noised.span))
    velocity = noised.target[index]
    features = None if noised.features is None else noised.features[index]

    def average_velocity(inputs: Tensor, timestep: Tensor, span: Tensor) -> Tensor:
        return forward(inputs, timestep, features, span)

    # Without autocast, which gives a norm and its forward-mode derivative different number types.
    with torch.autocast(inputs.device.type, enabled=False):
        if own_tangent:
            velocity = average_velocity(inputs, timestep, torch.zeros_like(span))
        derivative = total_derivative(average_velocity, inputs, timestep, span, velocity)
    shift = -span.view(-1, 1, 1, 1, 1) * derivative
    return replace(noised, target=noised.target.index_add(0, index, shift))


def total_derivative(
    average_velocity: Callable[[Tensor, Tensor, Tensor], Tensor],
    inputs: Tensor,
    timestep: Tensor,
    span: Tensor,
    velocity: Tensor,
) -> Tensor:
    """du/dt along a path of that velocity with r held, so that the span grows with t; (B, L, t, h, w)."""
    at, one = (inputs, timestep, span), torch.ones_like(timestep)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no forward-mode derivative
        derivative: Tensor = torch.func.jvp(average_velocity, at, (tangent_of(inputs, velocity), one, one))[1]
    return derivative


def with_adaptive_weight(noised: NoisedBatch, prediction: Tensor) -> NoisedBatch:
    """The same batch, its items weighed by the inverse of their own mean squared error, without gradient."""
    counted = noised.mask.expand_as(noised.target)
    squares = (prediction.detach().float() - noised.target).square() * counted
    error = squares.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
    weight = (error + WEIGHT_OFFSET) ** -WEIGHT_POWER
    return replace(noised, weight=weight.view(-1, 1, 1, 1, 1))
