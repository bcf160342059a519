"""Verification of a cache by reading all of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.paths import local_path
from vidlat.store import filesystem
from vidlat.store.disk_usage import disk_usage
from vidlat.store.layout import LOCK
from vidlat.store.lease import hold_for_reading
from vidlat.store.log import ROWS_AT_ONCE
from vidlat.store.ranges import CHECKSUMS, range_faults
from vidlat.store.records import VIDEO_COLUMNS, latest, without_removed
from vidlat.store.verify.latents import LatentChecker
from vidlat.store.verify.problem import Problem
from vidlat.store.verify.record_files import RecordReading, overlaps, read_all_records
from vidlat.store.verify.stray_files import KnownFiles, file_problem, find_suspects
from vidlat.store.verify.zarr_metadata import ZarrMetadata, read_zarr_metadata

CHECKED_COLUMNS = [
    *("video_id", "start", "stop", "num_frames", "sequence"),
    *(name for name in VIDEO_COLUMNS.names if name.startswith("latents_")),
]

OnVideo = Callable[[str, int], None]
"""Called after each video, with its id and the number of videos to read."""


def verify_cache(
    path: str | Path, on_video: OnVideo | None = None, *, only: Collection[str] | None = None
) -> Iterator[Problem]:
    """Read the whole cache at `path` and yield every problem; one shard is in memory at a time.

    only: ids of the videos whose latents are read; None for all. Frames that belong to no video are holes, no
    problem, and not read. Changes nothing. May run while an encode adds to the cache, but not during a prune.
    Raises StoreError if there is no cache at `path`, or if it is being pruned.
    """
    path, reading = local_path(path), _Reading()
    hold_for_reading(path, reading)
    with filesystem.lock_shared(path / LOCK):  # no driver commits or merges meanwhile
        layout = read_zarr_metadata(path)
        records = read_all_records(path, CHECKED_COLUMNS)
        known = KnownFiles.of(path, layout.num_shards)
    yield from (Problem(where=where, kind=kind, what=what) for where, kind, what in layout.findings)
    yield from records.problems
    suspects = list(find_suspects(path, known))
    videos = _standing(records)
    yield from overlaps(videos)
    if only is not None:
        videos = videos.filter(pc.is_in(videos["video_id"], pa.array(sorted(only), pa.string())))
    yield from _videos_problems(path, layout, videos, on_video)
    # By now a running encode has committed what it was writing.
    if suspects:
        known = KnownFiles.of(path, read_zarr_metadata(path).num_shards)
    for suspect in suspects:
        if suspect.is_the_same and (problem := file_problem(path, suspect.where, known)):
            yield problem


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedSpace:
    """What belongs to no video. num_hole_frames: latent frames, most of which were never written.

    num_dead_shards, num_dead_bytes: shard files without a video, which prune deletes. After a loss of records
    they may hold videos.
    """

    num_hole_frames: int
    num_dead_shards: int
    num_dead_bytes: int


def measure_unused_space(path: Path) -> UnusedSpace:
    """Measure what belongs to no video, as far as arrays and records can be read. Raises StoreError."""
    with filesystem.lock_shared(path / LOCK):  # no driver commits or merges meanwhile
        metadata = read_zarr_metadata(path)
        records = read_all_records(path, ["video_id", "sequence", "start", "stop", "num_frames"])
    num_frames = metadata.num_frames or 0
    videos = _standing(records)
    starts, stops = (np.clip(videos[name].to_numpy(), 0, num_frames) for name in ("start", "stop"))
    # A frame that several records name counts once.
    covered_before = np.maximum.accumulate(np.concatenate([[0], stops]))[:-1]
    num_used = int(np.maximum(stops - np.maximum(starts, covered_before), 0).sum())
    is_range = starts < stops
    usage = metadata.schema and disk_usage(
        path, starts[is_range], stops[is_range], metadata.schema.shard_frames
    )
    return UnusedSpace(
        num_hole_frames=num_frames - num_used,
        num_dead_shards=usage.num_dead_shards if usage else 0,
        num_dead_bytes=usage.num_dead_bytes if usage else 0,
    )


def _standing(records: RecordReading) -> pa.Table:
    """The latest row of every video that was not removed, in the order of the time axis."""
    return without_removed(latest(records.videos)).sort_by("start")


def _videos_problems(
    path: Path, layout: ZarrMetadata, videos: pa.Table, on_video: OnVideo | None
) -> Iterator[Problem]:
    """The problems of each video; latents in a range that cannot be its own are not read."""
    schema, num_frames = layout.schema, layout.num_frames
    if schema is None or num_frames is None:
        return
    checker = LatentChecker(path, schema, num_frames)
    for batch in videos.to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            wrong = [("range", what) for what in range_faults(row, len(row[CHECKSUMS]), schema, num_frames)]
            for kind, what in wrong or checker.findings(row):
                yield Problem(where=row["video_id"], kind=kind, what=what, is_video=True)
            if on_video:
                on_video(row["video_id"], len(videos))


class _Reading:
    """Keeps prune away as long as it lives."""
