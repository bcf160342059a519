"""The VAE calls of one task: neighbouring videos share a call, and calls shrink when memory runs out."""

from __future__ import annotations

from collections.abc import Callable

from vidlat.encode.vae import FrozenVAE
from vidlat.errors import NotEnoughMemoryError
from vidlat.pipeline.device_calls import DeviceCaller
from vidlat.pipeline.read_video import Stack
from vidlat.pipeline.scratch import ScratchLatents

Report = Callable[[int], None]
"""Receives the number of frames encoded since the last call."""


class VAECalls:
    """Collects stacks and runs the VAE on `vae.batch` of them at a time, always in the same shape.

    When memory runs out, the same stacks are encoded in calls of half as many, and so are all that follow.
    A video of which a single stack does not fit is refused with the kind "out-of-memory".
    """

    def __init__(self, vae: FrozenVAE, report: Report) -> None:
        self.vae = vae
        self.report = report
        self._caller = DeviceCaller(vae.device)
        self._waiting: list[tuple[ScratchLatents, Stack]] = []

    def add(self, latents: ScratchLatents, stack: Stack) -> None:
        """Queue a stack, and run the VAE if that fills a call."""
        self._waiting.append((latents, stack))
        while len(self._waiting) >= self.vae.batch:
            self._call()

    def finish(self) -> None:
        """Encode what is still queued; the last call is padded."""
        while self._waiting:
            self._call()

    def _call(self) -> None:
        part = self._waiting[: self.vae.batch]
        try:
            mean, std = self._caller.call(self.vae.encode_stacks, [stack.pixels for _, stack in part])
        except NotEnoughMemoryError as error:
            self._shrink(error)
            return
        del self._waiting[: len(part)]
        for index, (latents, _) in enumerate(part):
            latents.append(mean[index], std[index], self.vae.batch)
        self.report(sum(stack.num_frames for _, stack in part))

    def _shrink(self, error: NotEnoughMemoryError) -> None:
        if self.vae.batch > 1:
            self.vae = self.vae.with_batch(self.vae.batch // 2)
            return
        failed, _ = self._waiting[0]
        failed.refuse("out-of-memory", error)
        self._waiting = [(latents, stack) for latents, stack in self._waiting if latents is not failed]
