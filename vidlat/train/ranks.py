"""The processes that train together: one, or those that torchrun or `accelerate launch` started."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import nn

from vidlat.encode.device import resolve_device


def rank_and_count() -> tuple[int, int]:
    """The rank of this process and the number of ranks.

    From torch.distributed if it is initialised, else from RANK and WORLD_SIZE, which torchrun sets.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Ranks:
    """This process, number `index` of `count`, connected to the others by Hugging Face Accelerate.

    device: the one this process computes on.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(resolve_device(device))
        self.index, self.count = 0, 1
        if rank_and_count()[1] > 1:
            from accelerate import Accelerator  # takes a second to import

            # Precision is a setting of the run, not of a launcher's environment.
            self._accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision="no")
            self.device = self._accelerator.device
            self.index, self.count = self._accelerator.process_index, self._accelerator.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.index == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The same network; each backward pass averages its gradients over the processes."""
        wrapped: nn.Module = self._accelerator.prepare_model(model) if self.count > 1 else model
        return wrapped

    def without_sync(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """Backward passes inside accumulate gradients locally: for all but the last part of a step."""
        context: AbstractContextManager[Any] = (
            self._accelerator.no_sync(wrapped) if self.count > 1 else nullcontext()
        )
        return context

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, returned in each of them."""
        if self.count == 1:
            return value
        summed: torch.Tensor = self._accelerator.reduce(value, reduction="sum")
        return summed

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()
