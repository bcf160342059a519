"""A cache as batches for any PyTorch code: in this process, by DataLoader workers, on several ranks."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from typing import Literal

import torch
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from vidlat.errors import TrainError
from vidlat.store.reader import open_cache
from vidlat.train.dataset import MEMORY_LIMIT_BYTES, Batch, LatentDataset
from vidlat.train.latents import Whitening
from vidlat.train.windows import WindowShape, training_windows


class LatentBatches(IterableDataset[Batch]):
    """Whitened batches of random windows, every video once an epoch, without end or for some steps.

    frames: video frames of a window, whole stacks. batch: windows a step of this process. videos: ids, None
    for all. whitening: None for that of these videos. latents_as: "sample" draws from the posterior. steps:
    None for no end; first_step: to go on where another iteration ended.

    What is drawn follows from seed, step and place in the global batch: a DataLoader (batch_size=None) gives
    the same batches in the same order with any number of workers, and ranks split what one process would
    get of batch * num_ranks windows. rank, num_ranks: None for those of torch.distributed, else of the
    variables RANK and WORLD_SIZE, which torchrun sets.

    Reads in threads of its own, a few batches ahead; up to 2 GiB are held in memory, in each process.
    Raises StoreError for what is no cache, TrainError for frames that are no whole stacks or unknown videos.
    """

    def __init__(
        self,
        latents: Path | str,
        *,
        frames: int = 16,
        batch: int = 8,
        latents_as: Literal["sample", "mean"] = "sample",
        videos: Collection[str] | None = None,
        whitening: Whitening | None = None,
        seed: int = 0,
        first_step: int = 0,
        steps: int | None = None,
        rank: int | None = None,
        num_ranks: int | None = None,
    ) -> None:
        self.cache = open_cache(Path(latents))
        records = self.cache.records()
        unknown = sorted(set(videos or ()) - records.keys())
        if unknown:
            raise TrainError(f"{latents}: holds no video {', '.join(unknown[:5])}")
        self._records = [record for name, record in records.items() if videos is None or name in videos]
        if not self._records:
            raise TrainError(f"{latents}: no videos to train on")
        schema = self.cache.schema
        self.shape = WindowShape.of_clip(
            frames, stack=schema.settings.stack, time_compression=schema.time_compression
        )
        self.whitening = whitening or Whitening.from_records(self._records, latents_as)
        self.batch, self.latents_as, self.seed = batch, latents_as, seed
        self.first_step, self.steps = first_step, steps
        self.rank, self.num_ranks = _place(rank, num_ranks)

    def __iter__(self) -> Iterator[Batch]:
        """This process's batches; of a DataLoader's workers each takes every so manieth step."""
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        dataset = LatentDataset(
            self.cache, self._records, self.shape, self.whitening, self.latents_as,
            MEMORY_LIMIT_BYTES // stride,
        )  # fmt: skip
        items = range(self.rank * self.batch, (self.rank + 1) * self.batch)
        plans = (
            training_windows(
                self._records, self.shape, seed=self.seed, step=step,
                batch=self.batch * self.num_ranks, items=items,
            )
            for step in self._steps(first, stride)
        )  # fmt: skip
        return dataset.batches(plans)

    def _steps(self, first: int, stride: int) -> Iterator[int]:
        begin = self.first_step + first
        if self.steps is None:
            return count(begin, stride)
        return iter(range(begin, self.first_step + self.steps, stride))


def _place(rank: int | None, num_ranks: int | None) -> tuple[int, int]:
    """Which of how many processes this is."""
    if rank is None and num_ranks is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        rank, num_ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank is None or num_ranks is None or not 0 <= rank < num_ranks:
        raise TrainError(f"rank {rank} of {num_ranks} ranks: give both, rank from 0 up to num_ranks")
    return rank, num_ranks
