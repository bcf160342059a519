"""The VAE calls of one task: stacks of neighbouring videos share them, and less memory makes them smaller."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from vidlat.encode.vae import FrozenVAE
from vidlat.errors import NotEnoughMemoryError

_TURN = Lock()
"""Tasks of one process share its network and take turns at it: side by side they took twice the memory."""

Stack = npt.NDArray[np.float32]

Report = Callable[[int], None]
"""Receives the number of frames encoded since the last call."""


class StackOwner(Protocol):
    """A video whose stacks are encoded."""

    def append(self, mean: Stack, std: Stack, batch: int) -> None:
        """Take one stack's latents, each (L, t, h, w), which a call of `batch` stacks gave."""

    def fail(self, kind: str, error: BaseException) -> None:
        """Take the reason why there will be no latents."""


class VAECalls:
    """Collects stacks and runs the VAE on as many at a time as it takes, always in one shape.

    Where the memory does not suffice, the same stacks go in again, half as many a call, and so do all that
    follow. A video of which not even one stack fits fails with the kind "out-of-memory".
    """

    def __init__(self, vae: FrozenVAE, report: Report) -> None:
        self.vae = vae
        self.report = report
        self._waiting: list[tuple[StackOwner, Stack]] = []

    def add(self, owner: StackOwner, stack: Stack) -> None:
        """Queue a stack (S, H, W), and encode what is queued if that fills a call."""
        self._waiting.append((owner, stack))
        while len(self._waiting) >= self.vae.batch:
            self._call()

    def finish(self) -> None:
        """Encode what is still queued, in a call that is filled up."""
        while self._waiting:
            self._call()

    def _call(self) -> None:
        part = self._waiting[: self.vae.batch]
        stacks = torch.from_numpy(np.stack([stack for _, stack in part]))[:, None]
        try:
            with _TURN:
                mean, std = (latents.cpu().numpy() for latents in self.vae.encode_stacks(stacks))
        except NotEnoughMemoryError as error:
            self._take_less(error)
            return
        del self._waiting[: len(part)]
        for index, (owner, _) in enumerate(part):
            owner.append(mean[index], std[index], self.vae.batch)
        self.report(len(part) * self.vae.stack)

    def _take_less(self, error: NotEnoughMemoryError) -> None:
        if self.vae.batch > 1:
            self.vae = self.vae.with_batch(self.vae.batch // 2)
            return
        failed, _ = self._waiting[0]
        failed.fail("out-of-memory", error)
        self._waiting = [(owner, stack) for owner, stack in self._waiting if owner is not failed]
