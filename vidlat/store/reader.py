"""Reading a cache: its records, and latents by video or in windows of many videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError
from vidlat.store.disk_usage import DiskUsage, disk_usage
from vidlat.store.latents.arrays import Latents
from vidlat.store.latents.opening import open_arrays
from vidlat.store.latents.statistics import frame_checksums
from vidlat.store.layout import ARRAYS
from vidlat.store.metadata import array_frames, read_schema
from vidlat.store.records.log import RecordTable, dropped_videos, read_records
from vidlat.store.records.ranges import CHECKSUM_SIZES, CHECKSUMS, RANGE_COLUMNS, REPAIR, VideoRanges
from vidlat.store.records.tables import (
    ANNOTATION_COLUMNS,
    DROPPED,
    SOURCE_COLUMNS,
    to_annotations,
    to_failure_records,
    to_source,
    to_video_records,
)
from vidlat.store.records.values import require_sums
from vidlat.store.storage.interface import Storage
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.opening import cache_storage
from vidlat.store.writing.lease import hold_for_reading
from vidlat.types import Annotation, FailureRecord, LatentPosterior, Source, VideoRecord

ROWS_PER_BLOCK = 10_000


def open_cache(where: str | Path, *, hold: bool = True) -> LatentCache:
    """Open a cache for reading, at a path or an address: s3://, gs://, az:// or https://.

    hold: keep prune away as long as the object lives; not needed if no latents are read. Where the
    environment names a VIDLAT_CACHE_DIR, shards of a remote cache are kept there, up to VIDLAT_CACHE_GB.
    Raises StoreError if there is no cache, if it is damaged or of another format version, or while it is
    being pruned; Unreachable where an object store gives no answer.
    """
    return LatentCache(cache_storage(where), hold)


def _open_copy(where: str, hold: bool, cache_uuid: str) -> LatentCache:
    cache = open_cache(where, hold=hold)
    if cache.uuid != cache_uuid:
        raise StoreError(f"{where}: has been replaced by another cache; start again")
    return cache


class LatentCache:
    """The videos and failures of a cache as they were when it was opened; open it again to see later ones.

    where: its path or address. num_latent_frames: length of the time axis, holes included. Each latent frame
    that is read is compared with the checksum in its video's record, once per object. A pickled copy opens
    the cache again. A forked child of a process that has read latents cannot read any (the threads of
    tensorstore and obstore do not survive a fork): use spawn instead.
    """

    def __init__(self, storage: Storage, hold: bool = True) -> None:
        self.where, self.storage = storage.where, storage
        self.schema = read_schema(storage)
        self._hold = hold
        if hold and isinstance(storage, LocalStorage):
            hold_for_reading(storage.folder, self)
        self._snapshot = read_records(storage)
        # After the records, whose ranges it must cover: arrays grow before a commit.
        self.num_latent_frames = min(array_frames(storage, self.schema).values())
        self._arrays = open_arrays(storage, self.schema, self.num_latent_frames, self.uuid)
        self._records: dict[str, VideoRecord] | None = None

    def __reduce__(self) -> tuple[Any, tuple[str, bool, str]]:
        return _open_copy, (self.where, self._hold, self.uuid)

    @property
    def path(self) -> Path:
        """Its folder. Raises StoreError for a remote cache."""
        if isinstance(self.storage, LocalStorage):
            return self.storage.folder
        raise StoreError(f"{self.where}: is not in a folder of this machine; `vidlat pull` copies it there")

    @property
    def is_remote(self) -> bool:
        """Whether it is not in a folder of this machine."""
        return not isinstance(self.storage, LocalStorage)

    @property
    def uuid(self) -> str:
        """Given to the cache when it was created."""
        return self._snapshot.manifest.cache_uuid

    def __len__(self) -> int:
        """Videos in the cache."""
        return len(self._ranges.starts)

    @property
    def num_hole_frames(self) -> int:
        """Latent frames of the time axis that belong to no video."""
        return self.num_latent_frames - int((self._ranges.stops - self._ranges.starts).sum())

    def disk_usage(self) -> DiskUsage:
        """What the cache takes on disk now, and how much of it holds no video; microseconds per shard.

        Raises StoreError for a web server's, which lists no files.
        """
        return disk_usage(self.storage, self._ranges.starts, self._ranges.stops, self.schema.shard_frames)

    def records(self) -> dict[str, VideoRecord]:
        """The latest record of every video, sorted by video_id."""
        if self._records is None:
            _ = self._ranges  # checked before any record is used
            rows = self._snapshot.videos.read()
            try:
                require_sums(rows, self.schema.latent_dim)
            except StoreError as error:
                raise StoreError(f"{self.where}: damaged: {error}; {REPAIR}") from error
            self._records = to_video_records(rows)
        return self._records

    def sources(self) -> dict[str, Source]:
        """What each video was encoded from, by video_id."""
        return {video_id: to_source(*cells) for video_id, *cells in self.rows("video_id", *SOURCE_COLUMNS)}

    def annotations(self) -> dict[str, Annotation]:
        """Subject and labels of the videos that have any, by video_id."""
        table = self._table(ANNOTATION_COLUMNS)
        num_labels = np.diff(table["annotation_labels"].combine_chunks().offsets.to_numpy())
        has_subject = pc.not_equal(table["annotation_subject"], "")
        table = table.filter(pc.or_(has_subject, pa.array(num_labels > 0)))
        return dict(zip(table["video_id"].to_pylist(), to_annotations(table), strict=True))

    def failures(self) -> dict[str, FailureRecord]:
        """The latest failure of every video that was not encoded or removed later, sorted by video_id."""
        failures = to_failure_records(self._snapshot.standing_failures())
        return {id: failure for id, failure in failures.items() if failure.kind != DROPPED}

    def dropped(self) -> list[str]:
        """Sorted ids of the videos that `vidlat prune --drop` has removed, and that no encode adds again."""
        return dropped_videos(self._snapshot)

    def warnings(self) -> dict[str, list[str]]:
        """Warnings from decoding, by video_id, of the videos that have any."""
        table = self._table(["warnings"])
        table = table.filter(pc.greater(pc.list_value_length(table["warnings"]), 0))
        return dict(zip(table["video_id"].to_pylist(), table["warnings"].to_pylist(), strict=True))

    def columns(self, *names: str) -> dict[str, list[Any]]:
        """Some columns of all records, as lists sorted by video_id, which is always included."""
        table = self._table(names)
        return {name: table[name].to_pylist() for name in dict.fromkeys(("video_id", *names))}

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """The same columns as one tuple per video; a block of rows is in memory at a time."""
        for block in self._table(names).select(list(names)).to_batches(max_chunksize=ROWS_PER_BLOCK):
            yield from zip(*(column.to_pylist() for column in block.columns), strict=True)

    def _table(self, names: Sequence[str]) -> pa.Table:
        return self._snapshot.videos.read([name for name in names if name not in ("video_id", "sequence")])

    def read_latents(self, video_id: str) -> LatentPosterior:
        """One video's latents, stack padding included: mean and std, each (L, t, h, w) float16.

        Raises StoreError if the video is not in the cache, or if its latents are not those recorded.
        """
        record = self.records().get(video_id)
        if record is None:
            raise StoreError(f"{self.where}: holds no video {video_id!r}; `vidlat ls` lists its videos")
        frames = slice(record.start, record.stop)
        waits = {name: self._arrays.start_reading(name, frames) for name in ARRAYS}
        try:
            posterior = LatentPosterior(**{name: wait().swapaxes(0, 1) for name, wait in waits.items()})
        except ValueError as error:
            raise StoreError(f"{video_id}: its latents are damaged ({error}); {REPAIR}") from error
        checksums = [frame_checksums(each.swapaxes(0, 1)) for each in (posterior.mean, posterior.std)]
        if np.concatenate(checksums).tobytes() != record.latents.frame_crc32c:
            # Without this a missing shard would read as NaN.
            raise StoreError(f"{video_id}: its latents are not those recorded; {REPAIR}")
        return posterior

    def read_windows(
        self, starts: npt.NDArray[np.integer], num_latent_frames: int, with_std: bool = True
    ) -> tuple[Latents, Latents | None]:
        """Windows of `num_latent_frames` from each of `starts` (B,) on the cache's time axis.

        Returns mean and std (None unless with_std), each (B, L, t, h, w) float16. A window that runs past
        the end of its video repeats the video's last latent frame. Raises StoreError if a start lies in no
        video, or if latents are missing or damaged.
        """
        return self.read_windows_async(starts, num_latent_frames, with_std)()

    def read_windows_async(
        self, starts: npt.NDArray[np.integer], num_latent_frames: int, with_std: bool = True
    ) -> Callable[[], tuple[Latents, Latents | None]]:
        """Start `read_windows` in the background; the returned function waits for it."""
        starts = np.asarray(starts, dtype=np.int64)
        videos = self._ranges.index_of(starts)
        if (videos < 0).any():
            lost = starts[videos < 0][0]
            raise StoreError(
                f"{self.where}: no video is recorded at latent frame {lost}; open the cache again"
            )
        last = self._ranges.stops[videos] - 1
        frames = np.minimum(starts[:, None] + np.arange(num_latent_frames), last[:, None])
        names = ARRAYS if with_std else ARRAYS[:1]
        waits = [self._arrays.start_reading(name, frames) for name in names]

        def wait() -> tuple[Latents, Latents | None]:
            try:
                windows = [each() for each in waits]
            except ValueError as error:
                raise StoreError(f"{self.where}: latents are damaged ({error}); {REPAIR}") from error
            for name, window in zip(names, windows, strict=True):
                self._ranges.require_as_written(name, videos, frames, window)
            mean, *std = (window.swapaxes(1, 2) for window in windows)
            return mean, std[0] if with_std else None

        return wait

    @cached_property
    def _ranges(self) -> VideoRanges:
        videos = self._snapshot.videos
        sizes = videos.read_sizes(CHECKSUMS)
        records = self._table(RANGE_COLUMNS).append_column(CHECKSUM_SIZES, sizes)
        # Not a method, by which the cache would hold itself, and its lock for readers, after its last use.
        read_checksums = partial(_checksums_in_order, videos)
        return VideoRanges.from_records(
            self.where, records, self.schema, self.num_latent_frames, read_checksums
        )


def _checksums_in_order(videos: RecordTable) -> pa.ChunkedArray:
    """The checksums of every video, in the order of the time axis."""
    return videos.read(["start", CHECKSUMS]).sort_by("start")[CHECKSUMS]
