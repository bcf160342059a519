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
from vidlat.train.latents import Whitening
from vidlat.train.seeding import Draw, SeedKey, normal
from vidlat.train.windows import Window, WindowShape
from vidlat.types import VideoRecord

MEMORY_LIMIT_BYTES = 2 << 30
"""Latents up to this total size are held in memory."""

NUM_PREFETCHED = 4
"""Batches that are being read while one is used."""

Posterior = tuple[np.ndarray, np.ndarray | None]
"""Mean and std, each (B, L, t, h, w) float16; std may be None."""


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
        spans, schema = sorted((r.start, r.stop) for r in records), cache.schema
        frame_bytes = schema.latent_dim * schema.latent_height * schema.latent_width * 2
        num_bytes = sum(stop - start for start, stop in spans) * frame_bytes * (2 if self.with_std else 1)
        self._held: Posterior | None = None
        if num_bytes <= memory_limit_bytes:
            self._held_frames = np.concatenate([np.arange(*span) for span in spans])
            self._held = cache.read_windows(self._held_frames, 1, self.with_std)

    def batches(self, plans: Iterable[Sequence[Window]]) -> Iterator[Batch]:
        """Yield a batch for each list of windows, while the next ones are being read."""
        waiting: deque[tuple[Sequence[Window], Callable[[], Posterior]]] = deque()
        for windows in plans:
            waiting.append((windows, self._read(np.array([window.start for window in windows]))))
            if len(waiting) > NUM_PREFETCHED:
                yield self._assemble(*waiting.popleft())
        while waiting:
            yield self._assemble(*waiting.popleft())

    def _read(self, starts: np.ndarray) -> Callable[[], Posterior]:
        """Start to read the windows from `starts` (B,); the returned function waits for them.

        Their frames beyond the end of a video are arbitrary, and never used.
        """
        length = self.shape.num_latent_frames
        if self._held is None:
            return self.cache.read_windows_async(starts, length, self.with_std)
        rows = np.searchsorted(self._held_frames, starts)[:, None] + np.arange(length)
        rows = rows.clip(max=len(self._held_frames) - 1)
        mean, std = self._held
        return lambda: (_gather(mean, rows), None if std is None else _gather(std, rows))

    def _assemble(self, windows: Sequence[Window], wait: Callable[[], Posterior]) -> Batch:
        mean, std = wait()
        latents = mean.astype(np.float32, order="C")
        if std is not None:
            noise = [normal(window.key, Draw.POSTERIOR, latents.shape[1:]) for window in windows]
            latents += std * np.stack(noise)
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


def _gather(frames: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N, L, 1, h, w) at rows (B, t) to (B, L, t, h, w)."""
    return frames[rows, :, 0].swapaxes(1, 2)
