"""Compiling a network, with a way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vidlat.errors import one_line


def is_compiled(setting: bool | None, device: torch.device) -> bool:
    """Whether a network is to be compiled; None decides for the device."""
    return device.type == "cuda" if setting is None else setting


def compile_network(network: nn.Module, show_notice: Callable[[str], None]) -> None:
    """Let calls of a network run compiled from now on; names of weights stay.

    Without what compiling needs, a C++ compiler or Triton, the first call is told as a notice, and this and
    all others run as if nothing had been compiled.

    Not with CUDA graphs (`mode="reduce-overhead"`): they may overwrite gradients that accumulate, or silently
    keep those of the first part only (https://github.com/pytorch/pytorch/issues/169545 and 96693).
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    uncompiled, compiled = network.forward, torch.compile(network.forward)

    def forward(*inputs: Any) -> Any:
        try:
            return compiled(*inputs)
        except TorchDynamoException as error:
            reason = one_line(error)[:200]
        network.forward = uncompiled
        show_notice(f"the network cannot be compiled here, and runs slower ({reason})")
        return uncompiled(*inputs)

    network.forward = forward
