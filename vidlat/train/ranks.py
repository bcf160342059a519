"""The processes that train together: one, or those that torchrun or `accelerate launch` started."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from vidlat.encode.device import resolve_device


class Ranks:
    """This process among them, number `index` of `count`. Hugging Face Accelerate joins the others to it.

    device: of this process.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(resolve_device(device))
        self.count, self.index = 1, 0
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator  # takes a second to import

            # Precision is the run's own setting, not one that a launcher's environment has.
            self._accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision="no")
            self.device = self._accelerator.device
            self.count, self.index = self._accelerator.num_processes, self._accelerator.process_index

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.index == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The same network, whose gradients are the mean over the processes after each backward pass."""
        wrapped: nn.Module = self._accelerator.prepare_model(model) if self.count > 1 else model
        return wrapped

    def apart(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """While it is open, gradients stay each process's own: those of all but the last part of a step."""
        context: AbstractContextManager[Any] = (
            self._accelerator.no_sync(wrapped) if self.count > 1 else nullcontext()
        )
        return context

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over the processes, which each of them gets."""
        if self.count == 1:
            return value
        summed: torch.Tensor = self._accelerator.reduce(value, reduction="sum")
        return summed

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()
