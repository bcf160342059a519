"""The processes that train together: one, or those that torchrun or `accelerate launch` started."""

from __future__ import annotations

import atexit
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed
from torch import nn

from vidlat.encode.device import resolve_device
from vidlat.errors import TrainError, one_line, shown
from vidlat.resources import num_cores


def rank_and_count() -> tuple[int, int]:
    """The rank of this process and the number of ranks.

    From torch.distributed if it is initialised, else from RANK and WORLD_SIZE, which torchrun sets. Raises
    TrainError if these are no such numbers.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    rank, count = (os.environ.get(name) or default for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if not (rank.isdecimal() and count.isdecimal() and int(rank) < int(count)):
        raise TrainError(
            f"RANK is {shown(rank)} and WORLD_SIZE {shown(count)}: expected numbers as torchrun sets them, "
            "0 <= RANK < WORLD_SIZE; for one process unset both"
        )
    return int(rank), int(count)


def cores_of_rank() -> int:
    """Number of cores for this process: of those it may run on, its share among the ranks of this machine."""
    num_ranks = os.environ.get("LOCAL_WORLD_SIZE", "")  # set by torchrun
    return max(num_cores() // max(int(num_ranks) if num_ranks.isdecimal() else 1, 1), 1)


def _require_meeting_place(count: int) -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise TrainError(
            f"WORLD_SIZE is {count}, and {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
            "set; start the processes with torchrun, or unset WORLD_SIZE to train in one"
        )


_wrapped: WeakSet[nn.Module] = WeakSet()
"""The networks whose gradients the process group averages."""


def _leave_group() -> None:
    """Join the threads of gloo: one that still runs while the interpreter ends can abort the process.

    Waits for no other process. Groups of NCCL are left alone: there each process would wait for the others,
    one that has failed too.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_backend() != "gloo":
        return
    for wrapped in _wrapped:  # whoever still holds one would keep the group alive
        wrapped.__dict__.clear()
    torch.distributed.destroy_process_group()


def _connect(is_cpu: bool) -> Any:
    """The Accelerator of this process, whose process group is left when the process ends.

    Not before: a second group cannot meet at the place of the first.
    """
    import torch.distributed.nn.functional  # its default arguments would hold a group that is there before
    from accelerate import Accelerator  # takes a second to import

    if not torch.distributed.is_initialized():  # else the group belongs to the caller
        atexit.register(_leave_group)
    # Precision is a setting of the run, not of a launcher's environment.
    return Accelerator(cpu=is_cpu, mixed_precision="no")


class Ranks:
    """This process, number `index` of `count`, connected to the others by Hugging Face Accelerate.

    device: the one this process computes on. Raises TrainError if the processes cannot find each other.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(resolve_device(device))
        self.index, self.count = 0, 1
        num_expected = rank_and_count()[1]
        if num_expected > 1:
            _require_meeting_place(num_expected)
            try:
                self._accelerator = _connect(self.device.type == "cpu")
            except (ValueError, RuntimeError, OSError) as error:
                raise TrainError(
                    f"the {num_expected} processes of WORLD_SIZE do not find each other "
                    f"({one_line(error)[:300]}); start them with torchrun, or unset WORLD_SIZE for one"
                ) from error
            self.device = self._accelerator.device
            self.index, self.count = self._accelerator.process_index, self._accelerator.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.index == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The same network; each backward pass averages its gradients over the processes."""
        if self.count == 1:
            return model
        wrapped: nn.Module = self._accelerator.prepare_model(model)
        _wrapped.add(wrapped)
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
