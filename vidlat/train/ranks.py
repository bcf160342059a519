"""The processes that train together: one, or those that torchrun or `accelerate launch` started."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from vidlat.encode.device import resolve_device


class Ranks:
    """This process among them. Hugging Face Accelerate finds the others and joins the gradients."""

    def __init__(self, device: str) -> None:
        chosen = resolve_device(device)
        self._accelerator = Accelerator(cpu=chosen == "cpu")
        self.device = self._accelerator.device if self.count > 1 else torch.device(chosen)

    @property
    def count(self) -> int:
        """How many processes there are."""
        return int(self._accelerator.num_processes)

    @property
    def index(self) -> int:
        """Which one this is, from 0."""
        return int(self._accelerator.process_index)

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
        context: AbstractContextManager[Any] = self._accelerator.no_sync(wrapped)
        return context

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over the processes, which each of them gets."""
        if self.count == 1:
            return value
        summed: torch.Tensor = self._accelerator.reduce(value, reduction="sum")
        return summed

    def wait(self) -> None:
        """Until all have come here."""
        self._accelerator.wait_for_everyone()
