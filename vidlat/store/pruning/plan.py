"""What prune can remove: videos without a source, dead shards and chunks, old rows, leftovers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError
from vidlat.spelling import did_you_mean
from vidlat.store import layout
from vidlat.store.metadata import array_frames, read_schema
from vidlat.store.pruning.freed_space import bytes_of_copies, bytes_of_files, bytes_of_old_records
from vidlat.store.records.log import dropped_videos, read_records
from vidlat.store.records.ranges import CHECKSUM_SIZES, CHECKSUMS, RANGE_COLUMNS, require_possible_ranges
from vidlat.store.records.tables import DROPPED, SOURCE_COLUMNS, to_source
from vidlat.store.schema import CacheSchema
from vidlat.store.sources import source_state
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.stray_files import KnownFiles, file_problem, find_suspects

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What a prune would do to a cache in its present state.

    drop: ids of videos and failures to remove. excluded: ids to record as dropped, so that no encode adds
    these videos again. dead_shards: numbers of shards without a video. groups: ids of
    videos to move; the videos of a group share shards with each other and with dead chunks, which belong to
    no video. num_moved_bytes: size of the live chunks to move. num_freed_bytes: what the disk gets back, less
    the copies of moved videos, so that it may be negative. num_kept_bytes: size of files to delete that other
    caches share, by hard links, and so keep. num_needed_bytes: free disk space needed to move videos.
    leftovers: files of killed processes, and record files that a repair has set aside. num_old_rows: rows of
    the records that can go, including those of `drop`. sequence: the last commit that the plan knows.
    """

    drop: tuple[str, ...]
    excluded: tuple[str, ...]
    dead_shards: tuple[int, ...]
    groups: tuple[tuple[str, ...], ...]
    num_moved_bytes: int
    num_freed_bytes: int
    num_kept_bytes: int
    num_needed_bytes: int
    leftovers: tuple[Path, ...]
    num_old_rows: int
    sequence: int

    @property
    def num_moved(self) -> int:
        """Videos to move."""
        return sum(map(len, self.groups))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        needed = self.drop, self.excluded, self.dead_shards, self.groups, self.leftovers, self.num_old_rows
        return not any(needed)


def plan_prune(path: Path, drop: Collection[str] = (), vanished: Collection[str] = ()) -> PrunePlan:
    """Plan a prune that removes the videos `drop` for good, and `vanished` until they are encoded again.

    Reads only records and shard indexes. What it frees is exact but for a few bytes of the records, unless a
    video turns out to be damaged when it is moved.
    Raises StoreError if there is no cache, if its records are damaged, if it has latents but no record of any
    video, or for an unknown id.
    """
    schema = read_schema(local_cache(path))
    records = read_records(local_cache(path))
    if not records.manifest.files and any(layout.stored_shards(path, name) for name in layout.ARRAYS):
        raise StoreError(
            f"{path}: holds latents but no record of any video, so prune would delete everything; "
            "`vidlat encode` with your inputs adds them again"
        )
    rows = records.videos.read(list(RANGE_COLUMNS))
    rows = rows.append_column(CHECKSUM_SIZES, records.videos.read_sizes(CHECKSUMS))
    committed = records.videos.read_with_removed(["video_id"])
    videos, failed = (set(table["video_id"].to_pylist()) for table in (rows, records.standing_failures([])))
    # A prune that was killed may have removed some videos already, or recorded them as dropped and no more.
    unknown = sorted({*drop, *vanished} - videos - failed - set(committed["video_id"].to_pylist()))
    if unknown:
        hint = did_you_mean(unknown[0], sorted(videos | failed))
        raise StoreError(f"{path}: holds no video {unknown[0]!r}; nothing was changed{hint}")
    excluded = set(dropped_videos(records))
    removed = (videos | failed - excluded) & {*drop, *vanished} | videos & excluded
    is_dropped = pc.is_in(rows["video_id"], value_set=pa.array(removed, pa.string()))
    num_frames = min(array_frames(local_cache(path), schema).values())
    live = require_possible_ranges(str(path), rows.filter(pc.invert(is_dropped)), schema, num_frames)
    chunks = _Chunks(path, schema, live["start"].to_numpy(), live["stop"].to_numpy(), num_frames)
    groups = [group for group in chunks.groups() if chunks.num_dead_bytes(group.shards)]
    shards = chunks.dead_shards()
    leftovers = tuple(_leftovers(path))
    dead_files = [file for shard in shards for file in layout.shard_files(path, shard)]
    dead_files += [file for leftover in leftovers for file in filesystem.list_files(leftover)]
    dead = bytes_of_files(dead_files)
    left = bytes_of_files(
        file for group in groups for shard in group.shards for file in layout.shard_files(path, shard)
    )
    num_needed_bytes = max((chunks.num_needed_bytes(group.videos) for group in groups), default=0)
    num_live = len(live) + len(failed - (removed - excluded))
    num_old_rows = sum(file.num_rows for file in records.manifest.files) - num_live
    num_moved_bytes = sum(chunks.num_live_bytes(group.shards) for group in groups)
    lengths = [length for group in groups for length in chunks.lengths(group.videos)]
    new_dropped = sorted(set(drop) - excluded | removed & excluded)
    num_freed_bytes = dead.own + left.own - bytes_of_copies(schema, lengths, num_moved_bytes)
    if removed or new_dropped or num_old_rows or groups:
        num_freed_bytes += bytes_of_old_records(records, removed, new_dropped)
    return PrunePlan(
        drop=tuple(sorted(removed)),
        excluded=tuple(new_dropped),
        dead_shards=tuple(shards),
        groups=tuple(tuple(live["video_id"].take(list(group.videos)).to_pylist()) for group in groups),
        num_moved_bytes=num_moved_bytes,
        num_freed_bytes=num_freed_bytes,
        num_kept_bytes=dead.kept + left.kept,
        num_needed_bytes=max(0, num_needed_bytes - dead.own),
        leftovers=leftovers,
        num_old_rows=num_old_rows,
        sequence=records.manifest.sequence,
    )


def vanished_videos(path: Path) -> tuple[list[str], int]:
    """Ids of videos and failures whose source file does not exist, and the number of all videos and failures.

    Videos that were dropped before are neither. A file that is inaccessible, because of its permissions or
    the network, counts as existing.
    """
    records = read_records(local_cache(path))
    # The record of a video takes precedence over a failed attempt to replace it.
    failures = records.standing_failures([*SOURCE_COLUMNS, "kind"])
    failures = failures.filter(pc.not_equal(failures["kind"], DROPPED))
    tables = failures, records.videos.read(SOURCE_COLUMNS)
    sources = {
        video_id: to_source(*cells)
        for table in tables
        for video_id, *cells in zip(
            *(table[name].to_pylist() for name in ("video_id", *SOURCE_COLUMNS)), strict=True
        )
    }
    gone = [video_id for video_id, source in sources.items() if source_state(source) == "vanished"]
    return sorted(gone), len(sources)


@dataclass(frozen=True, slots=True)
class _Group:
    """Videos, as indices in the order of the time axis, and the shards that only they use."""

    videos: range
    shards: range


class _Chunks:
    """The chunks of the arrays, live or dead; starts and stops of the videos are sorted."""

    def __init__(
        self, path: Path, schema: CacheSchema, starts: Integers, stops: Integers, num_frames: int
    ) -> None:
        if num_frames % schema.shard_frames:
            raise StoreError(f"{path}: its arrays end inside a shard; `vidlat verify --repair` restores them")
        self.path = path
        self.schema = schema
        self._starts, self._stops = starts, stops
        first, last = self._starts // schema.chunk_frames, -(-self._stops // schema.chunk_frames)
        self._num_chunks = schema.shard_frames // schema.chunk_frames
        edges = np.zeros(num_frames // schema.chunk_frames + 1, np.int64)
        edges[first] += 1
        np.subtract.at(edges, last, 1)
        self._is_live = edges.cumsum()[:-1].astype(bool).reshape(-1, self._num_chunks)

    def groups(self) -> Iterator[_Group]:
        """All videos, grouped by shared shards."""
        first_shards = self._starts // self.schema.shard_frames
        stop_shards = -(-self._stops // self.schema.shard_frames)
        (apart,) = np.nonzero(first_shards[1:] >= stop_shards[:-1])
        edges = [0, *(apart + 1).tolist(), len(self._starts)]
        for begin, end in pairwise(edges):
            if begin < end:
                yield _Group(range(begin, end), range(int(first_shards[begin]), int(stop_shards[end - 1])))

    def dead_shards(self) -> list[int]:
        """Stored shards, of either array, that hold no chunk of a video."""
        live = set(map(str, np.flatnonzero(self._is_live.any(axis=1)).tolist()))
        grids = [self.path / layout.shards_folder(name) for name in layout.ARRAYS]
        folders = (grid / name for grid in grids for name in filesystem.list_names(grid) if name not in live)
        return sorted({int(folder.name) for folder in folders if _is_shard(folder)})

    def num_dead_bytes(self, shards: range) -> int:
        """Bytes of the stored chunks that belong to no video."""
        partly = [shard for shard in shards if not self._is_live[shard].all()]
        return sum(int(self._stored_bytes(shard)[~self._is_live[shard]].sum()) for shard in partly)

    def num_live_bytes(self, shards: range) -> int:
        """Bytes of the stored chunks of videos."""
        return sum(int(self._stored_bytes(shard)[self._is_live[shard]].sum()) for shard in shards)

    def lengths(self, videos: range) -> list[int]:
        """Latent frames of each of the videos."""
        stops, starts = (each[videos.start : videos.stop] for each in (self._stops, self._starts))
        return list((stops - starts).tolist())

    def num_needed_bytes(self, videos: range) -> int:
        """An upper bound of the disk space for copies of videos, with one shard to spare."""
        step = self.schema.chunk_frames
        num_chunks = sum(-(-length // step) for length in self.lengths(videos))
        num_frames = num_chunks * step + self.schema.shard_frames
        values = self.schema.latent_dim * self.schema.latent_height * self.schema.latent_width
        return num_frames * values * 2 * len(layout.ARRAYS)

    def _stored_bytes(self, shard: int) -> Integers:
        """Bytes of each chunk of a shard in both arrays; 0 if it is not stored or unknown."""
        sizes = [_index_sizes(file, self._num_chunks) for file in layout.shard_files(self.path, shard)]
        total: Integers = np.sum(sizes, axis=0)
        return total


def _is_shard(folder: Path) -> bool:
    """Whether a folder holds a shard, or nothing but leftovers of one."""
    is_folder = filesystem.is_folder(folder) and not filesystem.is_link(folder)
    if not is_folder or not layout.SHARD_NUMBER.fullmatch(folder.name):
        return False
    files = list(filesystem.list_files(folder))
    return folder / "0" / "0" in files or all(layout.LEFTOVER.fullmatch(file.name) for file in files)


def _index_sizes(file: Path, num_chunks: int) -> Integers:
    """The sizes in the index of a shard, 0 if the index is damaged, so that the shard is not changed."""
    num_bytes = 16 * num_chunks + 4
    try:
        index, end = filesystem.read_end(file, num_bytes)
    except FileNotFoundError:
        index, end = b"", 0
    if len(index) < num_bytes:
        return np.zeros(num_chunks, np.int64)
    sizes = np.frombuffer(index[:-4], "<u8")[1::2]
    # An absent chunk has the size 2^64 - 1.
    return np.where(sizes <= end, sizes, 0).astype(np.int64)


def _leftovers(path: Path) -> Iterator[Path]:
    """Files left in a cache by killed processes and repairs, and unfinished caches beside it."""
    for folder in (path / layout.RECORDS, path / layout.FAILURES):
        names = filter(layout.SET_ASIDE.fullmatch, filesystem.list_names(folder))
        yield from ((folder / name).absolute() for name in names)
    known = KnownFiles.of(path, None)
    for suspect in find_suspects(path, known):
        problem = file_problem(path, suspect.where, known)
        # Prune itself takes over the lease of a dead process.
        if problem and problem.kind == "leftover" and suspect.where != layout.LEASE:
            yield suspect.file.absolute()
