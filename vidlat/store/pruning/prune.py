"""Execution of a `PrunePlan`, after which all stored chunks belong to videos.

To move a video, its copy is written, read back and committed before an old shard is deleted. A kill at any
point leaves the video in its old or its new place, and a second run completes the first.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import EncodeError, StoreError
from vidlat.store.latents.tensorstore_arrays import open_for_reading
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.layout import ARRAYS, READERS, shard_files, shards_folder
from vidlat.store.metadata import array_frames
from vidlat.store.pruning.freed_space import batches_to_move, bytes_of_files
from vidlat.store.pruning.plan import PrunePlan
from vidlat.store.records.log import read_records
from vidlat.store.records.tables import to_row, to_video_records
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.latents import LatentChecker
from vidlat.store.writing.writer import CacheWriter
from vidlat.types import LatentPosterior, VideoRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """The result of a prune.

    num_freed_bytes: difference in size of all files that no other cache shares; negative if copies of moved
    videos took more. damaged: by video_id, why a video could not be moved; its shards were not changed.
    """

    num_freed_bytes: int
    damaged: dict[str, str]


def prune(writer: CacheWriter, plan: PrunePlan, on_step: Callable[[], None] = lambda: None) -> PruneResult:
    """Carry out `plan` on the writer's cache; the remaining latents are unchanged bit for bit.

    on_step: called for each deleted shard and each moved video. One shard and the records are in memory at a
    time. Raises StoreError, before anything is changed, if a process reads the cache, if the cache has
    changed since it was planned, or if there is not enough disk to move videos; later if a file operation
    fails, in which case nothing is lost and another prune does the rest.
    """
    path = writer.path.absolute()
    if plan.sequence != writer.last_sequence():
        raise StoreError(f"{path}: has changed since the prune was planned; try again")
    num_free = filesystem.free_bytes(path)
    if plan.num_needed_bytes > num_free:
        raise StoreError(
            f"{path}: moving videos takes {plan.num_needed_bytes} bytes of disk temporarily, and {num_free} "
            "are free; free some space first"
        )
    with _readers_kept_out(path):
        num_bytes = _num_bytes([path, *plan.leftovers])
        writer.remove(plan.drop, plan.excluded)
        for leftover in plan.leftovers:
            filesystem.delete_tree(leftover)
        for shard in plan.dead_shards:
            _delete_shard(path, shard)
            on_step()
        damaged = _Mover(writer).move(plan.groups, on_step)
        for name in ARRAYS:
            with suppress(FileNotFoundError):  # no shard was ever written
                filesystem.sync(path / shards_folder(name))
        if plan.drop or plan.num_old_rows or plan.num_moved > len(damaged):
            writer.compact_records()
        return PruneResult(num_freed_bytes=num_bytes - _num_bytes([path]), damaged=damaged)


class _Mover:
    """Copies videos into new shards and deletes the shards that they leave empty."""

    def __init__(self, writer: CacheWriter) -> None:
        self.path = writer.path
        self.schema = writer.schema
        self._writer = writer
        self._num_videos: Counter[int] = Counter()

    def move(self, groups: Sequence[Sequence[str]], on_step: Callable[[], None]) -> dict[str, str]:
        """Move every group whose videos are all sound; returns the faults of the videos in other groups."""
        damaged: dict[str, str] = {}
        for batch in batches_to_move(self._sound_videos(groups, damaged), _length, self.schema):
            self._copy(batch)
            for record in batch:
                self._leave(record)
                on_step()
        return damaged

    def _sound_videos(
        self, groups: Sequence[Sequence[str]], damaged: dict[str, str]
    ) -> Iterator[VideoRecord]:
        """The records of groups whose latents were read and found sound; a damaged group is not moved."""
        if not groups:
            return
        videos = read_records(local_cache(self.path)).videos.read()
        ids = pa.array([video_id for group in groups for video_id in group])
        videos = videos.filter(pc.is_in(videos["video_id"], value_set=ids))
        place = {video_id: number for number, video_id in enumerate(videos["video_id"].to_pylist())}
        for group in groups:
            rows = to_video_records(videos.take([place[video_id] for video_id in group]))
            if faults := self._faults(rows.values()):
                damaged.update(faults)
            else:
                self._num_videos.update(shard for row in rows.values() for shard in self._shards(row))
                yield from rows.values()

    def _copy(self, batch: Sequence[VideoRecord]) -> None:
        arrays = {name: open_for_reading(self.path / name) for name in ARRAYS}
        latents = [
            LatentPosterior(**{name: _view(arrays[name], video) for name in ARRAYS}) for video in batch
        ]
        start = self._writer.reserve(self.schema.num_shards([_length(video) for video in batch]))
        try:
            ranges = write_shards(self.path, start, latents)
        except (ValueError, EncodeError) as error:
            raise StoreError(f"{self.path}: can no longer be read: {error}; check the disk") from error
        copies = [
            dataclasses.replace(video, start=first, stop=stop)
            for video, (first, stop) in zip(batch, ranges, strict=True)
        ]
        for video_id, fault in self._faults(copies).items():
            raise StoreError(f"{video_id}: its copy differs from what was written ({fault}); check the disk")
        self._writer.recommit(copies)

    def _leave(self, record: VideoRecord) -> None:
        """Delete the shards in which the video was the last one."""
        for shard in self._shards(record):
            self._num_videos[shard] -= 1
            if not self._num_videos[shard]:
                _delete_shard(self.path, shard)

    def _faults(self, records: Iterable[VideoRecord]) -> dict[str, str]:
        """The first fault of the latents of each video that has any, by video_id."""
        checker = self._checker()
        first = {video.video_id: next(checker.findings(to_row(video)), None) for video in records}
        return {video_id: finding[1] for video_id, finding in first.items() if finding}

    def _checker(self) -> LatentChecker:
        storage = local_cache(self.path)
        return LatentChecker(storage, self.schema, min(array_frames(storage, self.schema).values()))

    def _shards(self, record: VideoRecord) -> range:
        length = self.schema.shard_frames
        return range(record.start // length, -(-record.stop // length))


def _length(record: VideoRecord) -> int:
    return record.stop - record.start


def _view(array: Any, record: VideoRecord) -> Any:
    """A video's latents (L, t, h, w), read when sliced, so that memory does not depend on its length."""
    return array[:, record.start : record.stop].translate_to[0, 0, 0, 0]


@contextmanager
def _readers_kept_out(path: Path) -> Iterator[None]:
    """Lock readers out during a block, whose errors of the system become StoreErrors."""
    try:
        with filesystem.locked(path / READERS, wait=False) as is_locked:
            if not is_locked:
                raise StoreError(
                    f"{path}: its file system has no locks, so that prune cannot tell whether a training "
                    "reads it; copy the cache to a disk with locks (a local one, NFS, Lustre mounted with "
                    "-o flock), prune it there and copy it back"
                )
            yield
    except BlockingIOError as error:
        raise StoreError(
            f"{path}: is being read, perhaps by a training, which would lose latents; prune when it has ended"
        ) from error
    except OSError as error:
        what = f"prune stopped early: {error}; nothing is lost, and another prune does the rest"
        raise StoreError(f"{path}: {what}") from error


def _delete_shard(path: Path, shard: int) -> None:
    for file in shard_files(path, shard):
        if any(map(filesystem.is_link, (file.parent, file.parent.parent))):
            continue  # the file lies elsewhere
        filesystem.delete(file)
        for folder in (file.parent, file.parent.parent):
            with suppress(OSError):  # missing, or not empty because of a foreign file
                filesystem.delete_empty_folder(folder)


def _num_bytes(paths: Sequence[Path]) -> int:
    """Bytes of files that have no other name on this disk."""
    return bytes_of_files({file for path in paths for file in filesystem.list_files(path)}).own
