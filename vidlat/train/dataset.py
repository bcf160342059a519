"""Windows of the cache as whitened batches: from memory if the latents fit, else prefetched from disk.

Shape letters: B items, L latent channels, t latent frames, h and w latent height and width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from vidlat.store.reader import LatentCache
from vidlat.train.latents import Whitening, draw_posterior
from vidlat.train.seeding import Draw, SeedKey, normal
from vidlat.train.windows import Window, WindowShape
from vidlat.types import VideoRecord

MEMORY_LIMIT_BYTES = 2 << 30
"""Latents up to this total size are held in memory."""

NUM_PREFETCHED = 4
"""Batches that are being read while one is used."""

Posterior = tuple[np.ndarray, np.ndarray | None]
"""Mean and std, each (num_stacks, L, stack_length, h, w) float16; std may be None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Whitened float32 latents (B, L, t, h, w) and which of their frames count.

    mask: (B, 1, t, 1, 1) float32, 1 for a real frame and 0 for padding. keys: the seeds of further draws.
    features: (B, D) float32, the condition of each video; None without conditions.
    """

    latents: torch.Tensor
    mask: torch.Tensor
    features: torch.Tensor | None
    video_ids: tuple[str, ...]
    keys: tuple[SeedKey, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device; a copy to a GPU is asynchronous."""
        device = torch.device(device)
        pinned = self.pin_memory() if device.type == "cuda" else self
        return pinned._each(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory; a DataLoader calls this for `pin_memory=True`."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        features = None if self.features is None else change(self.features)
        return replace(self, latents=change(self.latents), mask=change(self.mask), features=features)


class LatentDataset:
    """The latents of some videos of a cache, as batches of windows.

    latents_as: "sample" draws from the posterior; "mean" takes its mean and never reads std. features: the
    condition (D,) of each video by video_id; None without conditions.
    """

    def __init__(
        self,
        cache: LatentCache,
        records: Iterable[VideoRecord],
        shape: WindowShape,
        whitening: Whitening,
        latents_as: Literal["sample", "mean"],
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        features: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.features = features
        self.cache, self.shape, self.whitening = cache, shape, whitening
        self.with_std = latents_as == "sample"
        step = shape.stack_length
        starts = np.sort([start for r in records for start in range(r.start, r.stop, step)])
        schema = cache.schema
        frame_bytes = schema.latent_dim * schema.latent_height * schema.latent_width * 2
        num_bytes = len(starts) * step * frame_bytes * (2 if self.with_std else 1)
        self._held_starts = starts
        self._held: Posterior | None = None
        if num_bytes <= memory_limit_bytes:
            self._held = cache.read_windows(starts, step, with_std=self.with_std)

    def batches(self, plans: Iterable[Sequence[Window]]) -> Iterator[Batch]:
        """Yield a batch for each list of windows, while the next ones are being read."""
        waiting: deque[tuple[Sequence[Window], Callable[[], Posterior]]] = deque()
        for windows in plans:
            starts = np.array([start for window in windows for start in window.stack_starts])
            waiting.append((windows, self.gather(starts)))
            if len(waiting) > NUM_PREFETCHED:
                yield self._assemble(*waiting.popleft())
        while waiting:
            yield self._assemble(*waiting.popleft())

    def gather(self, starts: np.ndarray) -> Callable[[], Posterior]:
        """Start to read the stacks at `starts` (N,), as they are stored; the result waits for them."""
        if self._held is None:
            length = self.shape.stack_length
            return self.cache.read_windows_async(starts, length, with_std=self.with_std).result
        rows = np.searchsorted(self._held_starts, starts)
        mean, std = self._held
        gathered = mean[rows], None if std is None else std[rows]
        return lambda: gathered

    def _assemble(self, windows: Sequence[Window], wait: Callable[[], Posterior]) -> Batch:
        mean, std = wait()
        latents = self._join_stacks(mean, len(windows))
        if std is not None:
            noise = [normal(window.key, Draw.POSTERIOR, latents.shape[1:]) for window in windows]
            latents = draw_posterior(latents, self._join_stacks(std, len(windows)), np.stack(noise))
        mask = np.ones((len(windows), 1, latents.shape[2], 1, 1), np.float32)
        for item, window in enumerate(windows):
            # Repeated, not zeros, which would not be the latents of any frame.
            latents[item, :, window.num_valid :] = latents[item, :, window.num_valid - 1, None]
            mask[item, :, window.num_valid :] = 0
        features = None
        if self.features is not None:
            features = torch.from_numpy(np.stack([self.features[window.video_id] for window in windows]))
        return Batch(
            latents=torch.from_numpy(self.whitening.whiten(latents)),
            mask=torch.from_numpy(mask),
            features=features,
            video_ids=tuple(window.video_id for window in windows),
            keys=tuple(window.key for window in windows),
        )

    @staticmethod
    def _join_stacks(stacks: np.ndarray, num_windows: int) -> np.ndarray:
        """(B * num_stacks, L, s, h, w) to (B, L, num_stacks * s, h, w) float32."""
        _, latent_dim, _, height, width = stacks.shape
        apart = stacks.reshape(num_windows, -1, *stacks.shape[1:])
        moved = np.moveaxis(apart, 1, 2).astype(np.float32)
        return moved.reshape(num_windows, latent_dim, -1, height, width)
