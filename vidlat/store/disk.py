"""What a cache takes on disk, by its shards' names and sizes: nothing is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.store.metadata import ARRAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """What a cache takes on disk.

    num_bytes: of all files. num_dead_shards, num_dead_bytes: shard files in which no video stands, which
    prune can delete; while an encode runs, those that it is writing are among them.
    """

    num_bytes: int
    num_dead_shards: int
    num_dead_bytes: int


def disk_usage(
    path: Path, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], shard_frames: int
) -> DiskUsage:
    """Measure the cache at `path`, whose videos are at starts, stops (N,) on its time axis."""
    live = set(_shards_of(starts, stops, shard_frames).tolist())
    num_bytes = num_dead_shards = num_dead_bytes = 0
    for name in ARRAYS:
        for shard, size in _shard_sizes(f"{path}/{name}/c/0"):
            num_bytes += size
            if shard not in live:
                num_dead_shards += 1
                num_dead_bytes += size
    # Everything else is a few dozen files; a walk through the shards' folders would take ten times longer.
    others = [path / "zarr.json", *(path / name / "zarr.json" for name in ARRAYS)]
    for folder in ("videos", "failures"):
        others += (path / folder).rglob("*")
    num_bytes += sum(_size(os.fspath(file)) for file in others if not file.is_dir())
    return DiskUsage(num_bytes=num_bytes, num_dead_shards=num_dead_shards, num_dead_bytes=num_dead_bytes)


def _shards_of(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], shard_frames: int
) -> npt.NDArray[np.int64]:
    """Numbers of the shards in which a video stands."""
    first, last = starts // shard_frames, (stops - 1) // shard_frames
    size = int(last.max(initial=-1)) + 2
    # A video opens its first shard and closes behind its last: the sum tells how many are open.
    num_open = np.cumsum(np.bincount(first, minlength=size) - np.bincount(last + 1, minlength=size))
    return np.flatnonzero(num_open)


def _shard_sizes(folder: str) -> Iterator[tuple[int, int]]:
    """Number and size of every shard file below `folder`."""
    try:
        names = os.listdir(folder)  # noqa: PTH208  (see _size)
    except FileNotFoundError:  # no shard was ever written
        return
    for name in names:
        if name.isdecimal():
            yield int(name), _size(f"{folder}/{name}/0/0")


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116  (a Path for each of a million takes seconds)
    except OSError:
        return 0  # deleted meanwhile
