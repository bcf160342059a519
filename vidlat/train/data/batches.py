"""A cache as batches for any PyTorch code: in this process, in DataLoader workers, on several ranks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Literal

from torch.utils.data import IterableDataset, get_worker_info

from vidlat.errors import TrainError
from vidlat.store.reader import open_cache
from vidlat.train.data.chosen_videos import annotations_with, read_labels_for
from vidlat.train.data.dataset import MEMORY_LIMIT_BYTES, Batch, LatentDataset
from vidlat.train.data.latents import Whitening
from vidlat.train.data.windows import WindowShape, training_windows
from vidlat.train.objectives.conditioning import Conditions
from vidlat.train.ranks import cores_of_rank, rank_and_count


class LatentBatches(IterableDataset[Batch]):
    """Whitened batches of random windows, each video once per epoch.

    frames: video frames per window, whole stacks. batch: windows per step in this process. latents_as:
    "sample" draws from the posterior, "mean" takes its mean. videos: ids, None for all. whitening: None for
    that of these videos. conditions: labels to be encoded as `batch.features`, as for `vidlat train
    --condition`, planned for these videos; or the `conditions` of other batches. labels: a table whose labels
    take precedence over those in the cache. steps: number of batches, None for no end. first_step: where
    another iteration ended. rank, num_ranks: None for those of torch.distributed or torchrun (see
    `rank_and_count`).

    Random draws depend on seed, step and index in the global batch alone: a DataLoader (batch_size=None)
    gives the same batches in the same order with any number of workers, and ranks share the batches that one
    process would get with batch * num_ranks.

    Prefetches a few batches in threads; holds latents of up to 2 GiB in memory, in each process. Raises
    StoreError if `latents` is not a cache, TrainError for unknown videos or frames that are not whole stacks,
    InputError for a wrong table, ConfigError or TrainError for conditions that the labels do not allow.
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
        conditions: Sequence[str] | Conditions = (),
        labels: Path | str | None = None,
        seed: int = 0,
        first_step: int = 0,
        steps: int | None = None,
        rank: int | None = None,
        num_ranks: int | None = None,
    ) -> None:
        self.cache = open_cache(latents)
        records = self.cache.records()
        unknown = sorted(set(videos or ()) - records.keys())
        if unknown:
            raise TrainError(f"{latents} holds no video {', '.join(unknown[:5])}")
        self._records = [record for name, record in records.items() if videos is None or name in videos]
        if not self._records:
            raise TrainError(f"{latents} has no videos to train on")
        self.shape = WindowShape.of_clip(frames, self.cache.schema.timing)
        self.whitening = whitening or Whitening.from_records(self._records, latents_as)
        self._plan_conditions(conditions, labels)
        self.batch, self.latents_as, self.seed = batch, latents_as, seed
        self.first_step, self.steps = first_step, steps
        if rank is None and num_ranks is None:
            rank, num_ranks = rank_and_count()
        if rank is None or num_ranks is None or not 0 <= rank < num_ranks:
            raise TrainError(f"rank {rank} of {num_ranks} ranks: give both, with 0 <= rank < num_ranks")
        self.rank, self.num_ranks = rank, num_ranks

    def _plan_conditions(self, conditions: Sequence[str] | Conditions, table: Path | str | None) -> None:
        annotations = annotations_with(self.cache, read_labels_for(self.cache, table))
        labels = {record.video_id: annotations[record.video_id].labels for record in self._records}
        if not isinstance(conditions, Conditions):
            conditions = Conditions.plan(conditions, labels.values())
        self.conditions = conditions
        self._features = None
        if conditions.num_features:
            self._features = {video_id: conditions.encode_known(each) for video_id, each in labels.items()}

    def __iter__(self) -> Iterator[Batch]:
        """Yield this process's batches; n DataLoader workers take every n-th step each."""
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        dataset = LatentDataset(
            self.cache, self._records, self.shape, self.whitening, self.latents_as,
            MEMORY_LIMIT_BYTES // stride, features=self._features,
            num_threads=1 if worker else cores_of_rank(),
        )  # fmt: skip
        plans = (
            training_windows(
                self._records, self.shape, seed=self.seed, step=step,
                batch=self.batch, rank=self.rank, num_ranks=self.num_ranks,
            )
            for step in islice(count(self.first_step), first, self.steps, stride)
        )  # fmt: skip
        return dataset.batches(plans)
