"""Windows of the cache as whitened batches, computed ahead in threads: from memory if the latents fit, else
from disk.

Shape letters: B items, L latent channels, t latent frames, h and w latent height and width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from vidlat.store.reader import LatentCache
from vidlat.train.data.latents import Whitening
from vidlat.train.data.seeding import Draw, SeedKey, fill_normal
from vidlat.train.data.transfer import pin_memory, to_device
from vidlat.train.data.windows import Window, WindowShape
from vidlat.types import VideoRecord

MEMORY_LIMIT_BYTES = 2 << 30
"""Latents up to this total size are held in memory."""

NUM_PREFETCHED = 4
"""Batches that are being computed while one is used."""

PIECE_SIZE = 32_768
"""Values that a thread works on at once; they stay in its core's cache.

PyTorch computes no more than these in the thread that asks for it (at::internal::GRAIN_SIZE).
"""

Posterior = list[np.ndarray]
"""Mean, and where it is read std, each of float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Whitened float32 latents (B, L, t, h, w) and which of their frames count.

    mask: (B, 1, t, 1, 1) float32, 1 for a real frame and 0 for padding. keys: the seeds of further draws.
    features: (B, D) float32, the condition of each video; None without conditions. noise: (B, L, t, h, w)
    float32, standard normal; None unless the dataset draws it.
    """

    latents: torch.Tensor
    mask: torch.Tensor
    features: torch.Tensor | None
    noise: torch.Tensor | None
    video_ids: tuple[str, ...]
    keys: tuple[SeedKey, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device; a copy to a GPU is asynchronous."""
        return to_device(self, device)

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory; a DataLoader calls this for `pin_memory=True`."""
        return pin_memory(self)


class LatentDataset:
    """The latents of some videos of a cache, as batches of windows.

    latents_as: "sample" draws from the posterior; "mean" takes its mean and never reads std. features: the
    condition (D,) of each video by video_id; None without conditions. with_noise: whether batches hold noise.
    num_threads: of those that compute the batches. pinned: whether they are computed in pinned memory.
    """

    def __init__(
        self,
        cache: LatentCache,
        records: Iterable[VideoRecord],
        shape: WindowShape,
        whitening: Whitening,
        latents_as: Literal["sample", "mean"],
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        *,
        features: Mapping[str, np.ndarray] | None = None,
        with_noise: bool = False,
        num_threads: int = 1,
        pinned: bool = False,
    ) -> None:
        self.features, self.with_noise = features, with_noise
        self.num_threads, self.pinned = num_threads, pinned
        self.cache, self.shape, self.whitening = cache, shape, whitening
        self.with_std = latents_as == "sample"
        spans, schema = sorted((r.start, r.stop) for r in records), cache.schema
        frame_bytes = schema.latent_dim * schema.latent_height * schema.latent_width * 2
        num_bytes = sum(stop - start for start, stop in spans) * frame_bytes * (2 if self.with_std else 1)
        self._held: Posterior | None = None
        if num_bytes <= memory_limit_bytes:
            self._held_frames = np.concatenate([np.arange(*span) for span in spans])
            read = cache.read_windows(self._held_frames, 1, self.with_std)
            self._held = [frames[:, :, 0] for frames in read if frames is not None]

    def batches(self, plans: Iterable[Sequence[Window]]) -> Iterator[Batch]:
        """Yield a batch for each list of windows, while threads compute the next ones.

        The threads end with the iterator, where it ends, is closed or dropped.
        """
        waiting: deque[Callable[[], Batch]] = deque()
        with ThreadPoolExecutor(self.num_threads, thread_name_prefix="windows") as pool:
            try:
                for windows in plans:
                    waiting.append(self._start(windows, pool))
                    if len(waiting) > NUM_PREFETCHED:
                        yield waiting.popleft()()
                while waiting:
                    yield waiting.popleft()()
            finally:
                pool.shutdown(cancel_futures=True)

    def _start(self, windows: Sequence[Window], pool: ThreadPoolExecutor) -> Callable[[], Batch]:
        """Start to compute a batch, in parts; the returned function waits for it."""
        schema, num_frames = self.cache.schema, self.shape.num_latent_frames
        size = len(windows), schema.latent_dim, num_frames, schema.latent_height, schema.latent_width
        latents = torch.empty(size, pin_memory=self.pinned)
        noise = torch.empty(size, pin_memory=self.pinned) if self.with_noise else None
        read = self._read(np.array([window.start for window in windows]), pool)

        def fill(part: slice) -> None:
            self._fill_latents(latents[part].numpy(), windows[part], partial(read, part))
            if noise is not None:
                _fill_normal(noise[part].numpy(), windows[part], Draw.NOISE)

        length = max(PIECE_SIZE // latents[0].numel(), 1)
        filling = [
            pool.submit(fill, slice(first, first + length)) for first in range(0, len(windows), length)
        ]

        def finish() -> Batch:
            for filled in filling:
                filled.result()
            return self._batch(windows, latents, noise)

        return finish

    def _read(self, starts: np.ndarray, pool: ThreadPoolExecutor) -> Callable[[slice, slice], Posterior]:
        """Start to read the windows from `starts` (B,); the returned function waits for them.

        It takes a part of the windows and of their frames, (b, f, L, h, w). Frames beyond the end of a video
        are arbitrary, and never used.
        """
        length = self.shape.num_latent_frames
        if self._held is None:
            # Queued before the parts that wait for it, or they could keep every thread from running it.
            reading = pool.submit(self.cache.read_windows_async(starts, length, self.with_std))
            return lambda *part: [each.swapaxes(1, 2)[part] for each in reading.result() if each is not None]
        held, rows = self._held, np.searchsorted(self._held_frames, starts)[:, None] + np.arange(length)
        rows = rows.clip(max=len(self._held_frames) - 1)
        return lambda *part: [frames[rows[part]] for frames in held]

    def _fill_latents(
        self, latents: np.ndarray, windows: Sequence[Window], read: Callable[[slice], Posterior]
    ) -> None:
        """Fill in the whitened latents (b, L, t, h, w) of some windows; read: their posterior, by frames."""
        if self.with_std:
            _fill_normal(latents, windows, Draw.POSTERIOR)
        length = max(PIECE_SIZE // latents[:, :, 0].size, 1)
        for first in range(0, latents.shape[2], length):
            piece = latents[:, :, first : first + length]
            mean, *std = (_to_float32(each).swapaxes(1, 2) for each in read(slice(first, first + length)))
            if self.with_std:
                piece *= std[0]
                piece += mean
            else:
                piece[:] = mean
            self.whitening.whiten_in_place(piece)
        for item, window in enumerate(windows):
            # Repeated, not zeros, which would not be the latents of any frame.
            latents[item, :, window.num_valid :] = latents[item, :, window.num_valid - 1, None]

    def _batch(self, windows: Sequence[Window], latents: torch.Tensor, noise: torch.Tensor | None) -> Batch:
        mask = np.ones((len(windows), 1, latents.shape[2], 1, 1), np.float32)
        for item, window in enumerate(windows):
            mask[item, :, window.num_valid :] = 0
        features = None
        if self.features is not None:
            features = torch.from_numpy(np.stack([self.features[window.video_id] for window in windows]))
        return Batch(
            latents=latents,
            mask=torch.from_numpy(mask),
            features=features,
            noise=noise,
            video_ids=tuple(window.video_id for window in windows),
            keys=tuple(window.key for window in windows),
        )


def _fill_normal(values: np.ndarray, windows: Sequence[Window], draw: Draw) -> None:
    for item, window in zip(values, windows, strict=True):
        fill_normal(item, window.key, draw)


def _to_float32(values: np.ndarray) -> np.ndarray:
    """Converted by PyTorch, faster than by NumPy, in this thread alone: the others are the network's."""
    flat = values.reshape(-1)
    pieces = [flat[first : first + PIECE_SIZE] for first in range(0, flat.size, PIECE_SIZE)]
    return np.concatenate([torch.from_numpy(piece).float().numpy() for piece in pieces]).reshape(values.shape)
