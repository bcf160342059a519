"""Calling the VAE on its device: stacks there and latents back, while the device computes other calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidlat.encode.memory import within_memory
from vidlat.wording import format_count

Array = npt.NDArray[np.float32]
Encode = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]

_NETWORK = Lock()
"""Tasks of one process call its network one after another: at once they would take twice the memory."""


class DeviceCaller:
    """Runs calls of one thread on a device, in the order of all threads of this process.

    On a GPU the lock that orders them is held while a call is queued, not while it is computed, so that the
    next is queued by then, its stacks already copied on a stream beside that of the network. All memory of
    the network belongs to that one stream: calls that wait there take no more than one does.
    Both copies are between the device and pinned memory, which PyTorch keeps and gives out again when what
    was queued on it is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copying: Any = None
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def call(self, encode: Encode, stacks: Sequence[Array]) -> list[Array]:
        """What `encode` makes of stacks, each (S, H, W), as one tensor (N, 1, S, H, W).

        Raises NotEnoughMemoryError if memory does not suffice: that of the device, or pinned memory.
        """
        refusal = (
            f"not enough memory to bring {format_count(len(stacks), 'stack')} of "
            f"{'x'.join(map(str, stacks[0].shape))} to {self._device} and their latents back; lower --batch, "
            "--stack or --size"
        )
        return within_memory(lambda: self._call(encode, stacks), self._device, refusal)

    def _call(self, encode: Encode, stacks: Sequence[Array]) -> list[Array]:
        shape = len(stacks), 1, *stacks[0].shape
        host = torch.empty(shape, dtype=torch.float32, pin_memory=self._copying is not None)
        np.stack(stacks, out=host[:, 0].numpy())
        return self._call_here(encode, host) if self._copying is None else self._call_gpu(encode, host)

    def _call_here(self, encode: Encode, host: torch.Tensor) -> list[Array]:
        with _NETWORK:
            return [output.numpy() for output in encode(host)]

    def _call_gpu(self, encode: Encode, host: torch.Tensor) -> list[Array]:
        # A thread that waits for it takes no core.
        done: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._copying):
            stacks = host.to(self._device, non_blocking=True)
        with _NETWORK:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._copying)
            stacks.record_stream(computing)  # its memory is the other stream's
            results = [_queue_copy(output) for output in encode(stacks)]
            done.record(computing)
        done.synchronize()  # only now the copies are there
        return [result.numpy() for result in results]


def _queue_copy(output: torch.Tensor) -> torch.Tensor:
    host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
    return host.copy_(output, non_blocking=True)
