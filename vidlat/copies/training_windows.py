"""The windows that a run may train on, searched for the one nearest to a clip.

Shape letters: N windows, n latent frames, L latent channels, t latent frames of a window, h and w latent
height and width, h' and w' those after pooling; Q queries, D values of a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidlat.copies.signatures import pool, signatures
from vidlat.prefetch import prefetch
from vidlat.store.reader import LatentCache
from vidlat.train.data.nearest import NearestRows
from vidlat.train.data.windows import WindowShape, window_places
from vidlat.train.runs.frozen_run import Run
from vidlat.types import VideoRecord

BLOCK_BYTES = 32 * 1024**2
"""Latents, as float32, that are read at once, and signatures that are computed at once."""

HELD_BYTES = 1024**3
"""Pooled latents up to this total size are held in memory after the first search, which reads the cache."""

MEAN_FRAMES = 1024
"""Latent frames, evenly over the training windows, that their mean is taken of."""

Integers = npt.NDArray[np.int64]


class Place(NamedTuple):
    """A window: its video, and the latent frame of it that the window starts with."""

    record: VideoRecord
    start: int


class _Block(NamedTuple):
    """Windows of latent frames that are read together.

    frames: (n,) on the cache's time axis. rows: (N, t), the frames of each window as indices of `frames`.
    """

    frames: Integers
    rows: Integers


class TrainingWindows:
    """All windows of the training videos of a run, at every place where training may start one.

    A search reads the cache once and in order, in blocks: it takes about 0.5 GB, however many windows there
    are, and HELD_BYTES at most for searches that follow. device: where it computes.
    """

    def __init__(self, run: Run, cache: LatentCache, shape: WindowShape, device: torch.device) -> None:
        self.shape, self._cache, self._whitening, self._device = shape, cache, run.whitening, device
        records = cache.records()
        self._records = sorted((records[id] for id in run.training), key=lambda record: record.start)
        self._places = [window_places(record, shape) for record in self._records]
        self._stops = np.cumsum([len(places) for places in self._places])
        frame_bytes = 4 * cache.schema.latent_dim * cache.schema.latent_height * cache.schema.latent_width
        self._block_frames = max(shape.num_latent_frames, BLOCK_BYTES // frame_bytes)
        self._held: list[tuple[Tensor, Integers]] | None = None
        self._mean = self._mean_frame()

    def __len__(self) -> int:
        return int(self._stops[-1])

    def place(self, index: int) -> Place:
        """A window by its number, in the order of the cache's time axis."""
        video = int(np.searchsorted(self._stops, index, side="right"))
        places = self._places[video]
        return Place(self._records[video], places[index - int(self._stops[video]) + len(places)])

    def signatures_of(self, windows: Tensor) -> Tensor:
        """The signatures (N, D) of whitened windows (N, L, t, h, w)."""
        return signatures(pool(windows.to(self._device).transpose(1, 2)), self._mean)

    def signatures_at(self, places: Sequence[Place]) -> Tensor:
        """The signatures (N, D) of windows of the cache, of any of its videos."""
        frames = np.stack([self._frames(*place, 1) for place in places])
        parts = np.array_split(frames, -(-frames.size // self._block_frames))
        pooled = (self._read(part.ravel()).reshape(*part.shape, *self._mean.shape) for part in parts)
        return torch.cat([signatures(part, self._mean) for part in pooled])

    def nearest(
        self, queries: Tensor, on_progress: Callable[[float], None] = lambda _: None
    ) -> tuple[npt.NDArray[np.float64], Integers]:
        """The distance to the nearest window, and its number, for signatures (Q, D).

        on_progress: called with the share of all windows that was searched since. Raises StoreError for
        latents that are missing or damaged.
        """
        search = NearestRows(queries.to(self._device))
        for pooled, rows in self._pooled():
            windows = torch.from_numpy(rows).to(self._device)
            num_at_once = max(1, BLOCK_BYTES // (4 * queries.shape[1]))
            for part in torch.split(windows, num_at_once):
                search.add(signatures(pooled[part], self._mean))
            on_progress(len(rows) / len(self))
        return search.squared.sqrt().cpu().numpy(), search.index.cpu().numpy()

    def _pooled(self) -> Iterator[tuple[Tensor, Integers]]:
        """Blocks of pooled frames (n, L, h', w') and the frames (N, t) of each window."""
        if self._held is not None:
            yield from self._held
            return
        num_frames = sum(record.stop - record.start for record in self._records)
        held: list[tuple[Tensor, Integers]] | None
        held = [] if num_frames * self._mean.numel() * 4 <= HELD_BYTES else None
        blocks = ((self._read(block.frames), block.rows) for block in self._blocks())
        with prefetch(blocks, 1) as read:
            for block in read:
                if held is not None:
                    held.append(block)
                yield block
        self._held = held

    def _blocks(self) -> Iterator[_Block]:
        frames: list[Integers] = []
        rows: list[Integers] = []
        length, step = self.shape.num_latent_frames, self.shape.timing.latent_step
        num_at_once = (self._block_frames - length) // step + 1
        num_frames = 0
        for record, places in zip(self._records, self._places, strict=True):
            for first in range(0, len(places), num_at_once):
                part = places[first : first + num_at_once]
                frames.append(self._frames(record, part[0], len(part)))
                offsets = num_frames + step * np.arange(len(part))
                rows.append(offsets[:, None] + np.arange(length))
                num_frames += len(frames[-1])
                if num_frames >= self._block_frames:
                    yield _Block(np.concatenate(frames), np.concatenate(rows))
                    frames, rows, num_frames = [], [], 0
        if frames:
            yield _Block(np.concatenate(frames), np.concatenate(rows))

    def _frames(self, record: VideoRecord, start: int, num_windows: int) -> Integers:
        """The frames on the cache's time axis of successive windows, the last real one repeated."""
        timing = self.shape.timing
        stop = start + timing.latent_step * (num_windows - 1) + self.shape.num_latent_frames
        last = timing.num_valid(record.num_frames) - 1
        return record.start + np.minimum(np.arange(start, stop), last)

    def _read(self, frames: Integers) -> Tensor:
        """Whitened and pooled (n, L, h', w')."""
        mean, _ = self._cache.read_windows(frames, 1, with_std=False)
        pooled = pool(torch.from_numpy(mean[:, :, 0]).to(self._device).float())
        return self._whitening.whiten(pooled[:, :, None])[:, :, 0]

    def _mean_frame(self) -> Tensor:
        """(L, h', w')."""
        numbers = np.linspace(0, len(self) - 1, min(MEAN_FRAMES, len(self))).round().astype(int)
        frames = np.array([record.start + start for record, start in map(self.place, numbers)])
        parts = np.array_split(frames, -(-len(frames) // self._block_frames))
        return torch.cat([self._read(part) for part in parts]).mean(0)
