"""The exponential moving average of a network's weights, which every training here samples or saves.

Not `torch.optim.swa_utils.AveragedModel`: its first update copies the weights and its decay has no warm-up,
and its own step counter would be one more thing in a checkpoint.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def start_average(network: Network) -> Network:
    """A copy of the network to average into: in evaluation mode, without gradients."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the network's weights after a step counted from 0; buffers are copied.

    The decay is min(decay, (1 + step) / (10 + step)): a constant one would keep the initial weights for long.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
