"""Disk usage of a cache, from the names and sizes of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidlat.store.layout import (
    ARRAYS,
    FAILURES,
    OWN_FILES,
    RECORDS,
    SHARD_FILE,
    SHARD_NUMBER,
    shard_file,
    shards_folder,
)
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Storage
from vidlat.store.storage.local import LocalStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Disk usage of a cache.

    num_bytes: of all files. num_dead_shards, num_dead_bytes: shard files without a video, which prune can
    delete; while an encode runs, they include those that it is writing.
    """

    num_bytes: int
    num_dead_shards: int
    num_dead_bytes: int


def disk_usage(
    storage: Storage, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], shard_frames: int
) -> DiskUsage:
    """Measure a cache whose videos have the ranges starts, stops (N,) on its time axis.

    Raises StoreError for a storage that cannot be listed.
    """
    live = set(_shards_of(starts, stops, shard_frames).tolist())
    num_bytes = num_dead_shards = num_dead_bytes = 0
    for where, size in _local_files(storage) if isinstance(storage, LocalStorage) else storage.list():
        num_bytes += size
        shard = SHARD_FILE.fullmatch(where)
        if shard and int(shard[1]) not in live:
            num_dead_shards += 1
            num_dead_bytes += size
    return DiskUsage(num_bytes=num_bytes, num_dead_shards=num_dead_shards, num_dead_bytes=num_dead_bytes)


def _shards_of(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], shard_frames: int
) -> npt.NDArray[np.int64]:
    """Numbers of the shards that hold a video."""
    first, last = starts // shard_frames, (stops - 1) // shard_frames
    size = int(last.max(initial=-1)) + 2
    # +1 at the first shard of a video and -1 after its last: the sum counts videos per shard.
    num_open = np.cumsum(np.bincount(first, minlength=size) - np.bincount(last + 1, minlength=size))
    return np.flatnonzero(num_open)


def _local_files(storage: LocalStorage) -> Iterator[tuple[str, int]]:
    """Each file of a cache, relative to its folder, and its size; no others that lie beside them.

    To walk through the folders of the shards would take ten times longer.
    """
    path = storage.folder
    for name in ARRAYS:
        for number in filesystem.list_names(path / shards_folder(name)):
            if SHARD_NUMBER.fullmatch(number):
                where = shard_file(name, int(number))
                # Text, since a Path for each of a million shards takes seconds.
                yield where, filesystem.size_or_zero(f"{path}/{where}")
    others = set(OWN_FILES)
    for folder in (RECORDS, FAILURES):
        others |= {f"{folder}/{name}" for name in filesystem.list_names(path / folder)}
    for where in others:
        yield where, filesystem.size_or_zero(path / where)
