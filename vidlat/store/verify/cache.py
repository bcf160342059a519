"""Verification of a cache by reading all of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.prefetch import map_ahead
from vidlat.store.disk_usage import disk_usage
from vidlat.store.layout import LOCK
from vidlat.store.records.log import ROWS_AT_ONCE
from vidlat.store.records.ranges import CHECKSUMS, range_faults
from vidlat.store.records.tables import VIDEO_COLUMNS, latest, without_removed
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Storage
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.opening import cache_storage
from vidlat.store.verify.latents import Finding, LatentChecker
from vidlat.store.verify.problem import Problem
from vidlat.store.verify.record_files import RecordReading, overlaps, read_all_records
from vidlat.store.verify.stray_files import KnownFiles, file_problem, find_suspects
from vidlat.store.verify.zarr_metadata import ZarrMetadata, read_zarr_metadata
from vidlat.store.writing.lease import hold_for_reading

CHECKED_COLUMNS = [
    *("video_id", "start", "stop", "num_frames", "sequence"),
    *(name for name in VIDEO_COLUMNS.names if name.startswith("latents_")),
]

NUM_AT_ONCE = 16
"""Videos of a remote cache that are read at once."""

OnVideo = Callable[[str, int], None]
"""Called after each video, with its id and the number of videos to read."""


def verify_cache(
    where: str | Path, on_video: OnVideo | None = None, *, only: Collection[str] | None = None
) -> Iterator[Problem]:
    """Read a whole cache, at a path or an address, and yield every problem.

    only: ids of the videos whose latents are read; None for all. Frames that belong to no video are holes, no
    problem, and not read. One shard is in memory at a time, and 16 of a remote cache. Files that do not
    belong there are looked for in a folder only. Changes nothing. May run while an encode adds to the cache,
    but not during a prune. Raises StoreError if there is no cache,
    or if it is being pruned; Unreachable where an object store gives no answer.
    """
    yield from verify_storage(cache_storage(where), on_video, only=only)


def verify_storage(
    storage: Storage, on_video: OnVideo | None = None, *, only: Collection[str] | None = None
) -> Iterator[Problem]:
    """As `verify_cache`, of the cache in a storage."""
    reading = _Reading()
    folder = storage.folder if isinstance(storage, LocalStorage) else None
    if folder:
        hold_for_reading(folder, reading)
    with _no_commits(storage):
        layout = read_zarr_metadata(storage)
        records = read_all_records(storage, CHECKED_COLUMNS)
        known = KnownFiles.of(folder, layout.num_shards) if folder else KnownFiles()
    yield from (Problem(where=where, kind=kind, what=what) for where, kind, what in layout.findings)
    yield from records.problems
    suspects = list(find_suspects(folder, known)) if folder else []
    videos = _standing(records)
    yield from overlaps(videos)
    if only is not None:
        videos = videos.filter(pc.is_in(videos["video_id"], pa.array(sorted(only), pa.string())))
    yield from _videos_problems(storage, layout, videos, on_video)
    if not folder or not suspects:
        return
    # By now a running encode has committed what it was writing.
    known = KnownFiles.of(folder, read_zarr_metadata(storage).num_shards)
    for suspect in suspects:
        if suspect.is_the_same and (problem := file_problem(folder, suspect.where, known)):
            yield problem


@contextmanager
def _no_commits(storage: Storage) -> Iterator[None]:
    """No driver commits or merges in a folder meanwhile; in an object store the manifest alone decides."""
    if isinstance(storage, LocalStorage):
        with filesystem.lock_shared(storage.folder / LOCK):
            yield
    else:
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedSpace:
    """What belongs to no video. num_hole_frames: latent frames, most of which were never written.

    num_dead_shards, num_dead_bytes: shard files without a video, which prune deletes. After a loss of records
    they may hold videos.
    """

    num_hole_frames: int
    num_dead_shards: int
    num_dead_bytes: int


def measure_unused_space(where: str | Path) -> UnusedSpace:
    """Measure what belongs to no video, as far as arrays and records can be read. Raises StoreError."""
    storage = cache_storage(where)
    with _no_commits(storage):
        metadata = read_zarr_metadata(storage)
        records = read_all_records(storage, ["video_id", "sequence", "start", "stop", "num_frames"])
    num_frames = metadata.num_frames or 0
    videos = _standing(records)
    starts, stops = (np.clip(videos[name].to_numpy(), 0, num_frames) for name in ("start", "stop"))
    # A frame that several records name counts once.
    covered_before = np.maximum.accumulate(np.concatenate([[0], stops]))[:-1]
    num_used = int(np.maximum(stops - np.maximum(starts, covered_before), 0).sum())
    is_range = starts < stops
    usage = None
    if metadata.schema and storage.is_listed:
        usage = disk_usage(storage, starts[is_range], stops[is_range], metadata.schema.shard_frames)
    return UnusedSpace(
        num_hole_frames=num_frames - num_used,
        num_dead_shards=usage.num_dead_shards if usage else 0,
        num_dead_bytes=usage.num_dead_bytes if usage else 0,
    )


def _standing(records: RecordReading) -> pa.Table:
    """The latest row of every video that was not removed, in the order of the time axis."""
    return without_removed(latest(records.videos)).sort_by("start")


def _videos_problems(
    storage: Storage, layout: ZarrMetadata, videos: pa.Table, on_video: OnVideo | None
) -> Iterator[Problem]:
    """The problems of each video; latents in a range that cannot be its own are not read."""
    schema, num_frames = layout.schema, layout.num_frames
    if schema is None or num_frames is None:
        return
    checker = LatentChecker(storage, schema, num_frames)

    def findings(row: dict[str, Any]) -> tuple[str, list[Finding]]:
        wrong = [("range", what) for what in range_faults(row, len(row[CHECKSUMS]), schema, num_frames)]
        return row["video_id"], wrong or list(checker.findings(row))

    rows = (row for batch in videos.to_batches(max_chunksize=ROWS_AT_ONCE) for row in batch.to_pylist())
    at_once = 1 if isinstance(storage, LocalStorage) else NUM_AT_ONCE
    for video_id, found in map_ahead(findings, rows, at_once, at_once):
        for kind, what in found:
            yield Problem(where=video_id, kind=kind, what=what, is_video=True)
        if on_video:
            on_video(video_id, len(videos))


class _Reading:
    """Keeps prune away as long as it lives."""
