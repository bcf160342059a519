"""Disk usage of a cache, from the names and sizes of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.store import filesystem
from vidlat.store.layout import ARRAYS, FAILURES, OWN_FILES, RECORDS, SHARD_NUMBER, shard_file, shards_folder


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
    path: Path, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], shard_frames: int
) -> DiskUsage:
    """Measure the cache at `path`, whose videos have the ranges starts, stops (N,) on its time axis."""
    live = set(_shards_of(starts, stops, shard_frames).tolist())
    num_bytes = num_dead_shards = num_dead_bytes = 0
    for name in ARRAYS:
        for shard, size in _shard_sizes(path, name):
            num_bytes += size
            if shard not in live:
                num_dead_shards += 1
                num_dead_bytes += size
    # A few dozen other files; to walk through the folders of the shards would take ten times longer.
    others = {path / name for name in OWN_FILES}
    for folder in (RECORDS, FAILURES):
        others |= {path / folder / name for name in filesystem.list_names(path / folder)}
    num_bytes += sum(map(filesystem.size_or_zero, others))
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


def _shard_sizes(path: Path, name: str) -> Iterator[tuple[int, int]]:
    """Number and size of every shard file of an array."""
    for number in filesystem.list_names(path / shards_folder(name)):
        if SHARD_NUMBER.fullmatch(number):
            shard = int(number)
            # Text, since a Path for each of a million shards takes seconds.
            yield shard, filesystem.size_or_zero(f"{path}/{shard_file(name, shard)}")
