"""Merging caches that were encoded apart: the shards of each are linked into one cache, the records moved.

The order that survives a kill at any point is that of an encode: reserve, put the shards in place, make them
permanent, commit. A part is committed as a whole, and what no commit names is a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError
from vidlat.store import layout
from vidlat.store.copying.merge_plan import MergePart, MergePlan, differences, plan_merge, refuse_unfinished
from vidlat.store.records.log import RecordSnapshot, read_records
from vidlat.store.records.ranges import REPAIR
from vidlat.store.records.tables import with_ranges, with_sequence
from vidlat.store.records.values import require_sums
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache, require_folder
from vidlat.store.writing.lease import reading
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.store.writing.writer import CacheWriter

PURPOSE = "vidlat merge"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedPart:
    """A cache whose videos are all in the merged one.

    num_videos, num_failures: added. num_skipped: videos that were there already. num_linked, num_copied:
    files of shards. why_copied: why files could not be linked, empty if all were.
    """

    path: Path
    num_videos: int
    num_skipped: int
    num_failures: int
    num_linked: int
    num_copied: int
    why_copied: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeProgress:
    """What happened: a file of a shard was linked or copied, or a part is merged.

    plan: in the first event, before anything is written. num_files: linked or copied.
    """

    plan: MergePlan | None = None
    num_files: int = 0
    merged: MergedPart | None = None


def merge_caches(parts: Sequence[str | Path], out: str | Path) -> Generator[MergeProgress]:
    """Merge caches into the one at `out`, which is created or added to, yielding what happens.

    parts: caches of equal settings, ids and layout, which are not changed. Their shards become shards of
    `out` too, by hard links where the disk allows. A video that `out` or an earlier part holds already is
    skipped, and so is the failure of one. After a kill or an error, another merge does the rest.
    Raises the errors of `plan_merge` before anything is written; later StoreError, when all of a part is in
    `out` or nothing.
    """
    plan = plan_merge([require_folder(part, "merge") for part in parts], require_folder(out, "merge into"))
    yield MergeProgress(plan=plan)
    with _open_target(plan) as writer:
        for part in plan.parts:
            yield from _add(part, writer)


@contextmanager
def _open_target(plan: MergePlan) -> Iterator[CacheWriter]:
    """Create the cache if needed, and hold it for writing during a block."""
    if not layout.holds_anything(plan.out):
        create_cache(plan.out, plan.schema)
    with open_writer(plan.out, PURPOSE) as writer:
        if differences(plan.schema, writer.schema) or writer.last_sequence() != plan.planned_at:
            raise StoreError(f"{plan.out}: changed while this merge was planned; run the same command again")
        yield writer


def _add(part: MergePart, writer: CacheWriter) -> Iterator[MergeProgress]:
    """Add one part, all of it or nothing."""
    reasons: list[str] = []
    tables: dict[str, Callable[[int], pa.Table]] = {}
    with reading(part.path):
        refuse_unfinished(part.path)
        records = _read_as_planned(part)
        if part.is_new.any():
            videos = _new_videos(part, records, writer)
            start = writer.reserve(len(part.shards))
            for reason in _take_shards(part, writer, start):
                reasons.append(reason)
                yield MergeProgress(num_files=1)
            # One call for thousands of new folders and links, each of which would take an fsync of its own;
            # it also covers the content of parts that were copied here a moment ago.
            filesystem.sync_all()
            moved = _moved(part, videos, writer.schema.shard_frames, start)
            # First: if a kill leaves it alone, no video is lost, and another merge adds the failures.
            tables[layout.RECORDS] = lambda sequence: with_sequence(moved, sequence)
        if part.failures:
            failures = _new_failures(part, records)
            tables[layout.FAILURES] = lambda sequence: with_sequence(failures, sequence)
    if tables:
        writer.append_rows(tables)
    num_copied = sum(map(bool, reasons))
    num_videos = int(part.is_new.sum())
    merged = MergedPart(
        path=part.path,
        num_videos=num_videos,
        num_skipped=len(part.is_new) - num_videos,
        num_failures=len(part.failures),
        num_linked=len(reasons) - num_copied,
        num_copied=num_copied,
        why_copied=next(filter(None, reasons), ""),
    )
    yield MergeProgress(merged=merged)


def _read_as_planned(part: MergePart) -> RecordSnapshot:
    records = read_records(local_cache(part.path))
    if (records.manifest.cache_uuid, records.manifest.sequence) != (part.cache_uuid, part.sequence):
        raise StoreError(f"{part.path}: changed during the merge; run the same command again")
    return records


def _new_videos(part: MergePart, records: RecordSnapshot, writer: CacheWriter) -> pa.Table:
    """The rows of the videos to add. Raises StoreError for a damaged one."""
    rows = records.videos.read().filter(pa.array(part.is_new))
    try:
        require_sums(rows, writer.schema.latent_dim)
    except StoreError as error:
        raise StoreError(f"{part.path}: damaged: {error}; {REPAIR}") from error
    return rows


def _new_failures(part: MergePart, records: RecordSnapshot) -> pa.Table:
    failures = records.standing_failures()
    return failures.filter(pc.is_in(failures["video_id"], value_set=pa.array(part.failures, pa.string())))


def _take_shards(part: MergePart, writer: CacheWriter, start: int) -> Iterator[str]:
    """Link or copy the files of the shards to the range at `start`, in order; yields why each was copied."""
    out, shard_frames = writer.path, writer.schema.shard_frames
    try:
        for name in layout.ARRAYS:
            filesystem.make_folder(out / layout.shards_folder(name))
        for new_shard, shard in enumerate(part.shards.tolist(), start // shard_frames):
            for name in layout.ARRAYS:
                # Created only once, so that no shard is written over and no link is followed. Text, since a
                # Path for each of a million files takes seconds.
                folder = f"{out}/{layout.shards_folder(name)}/{new_shard}"
                filesystem.create_folder(folder)
                filesystem.create_folder(f"{folder}/0")
                file, new_file = layout.shard_file(name, shard), layout.shard_file(name, new_shard)
                yield filesystem.link_or_copy(f"{part.path}/{file}", f"{out}/{new_file}")
    except OSError as error:
        raise StoreError(
            f"{out}: cannot take the shards of {part.path}: {error}; what was merged before is safe, run "
            "the same command again"
        ) from error


def _moved(part: MergePart, videos: pa.Table, shard_frames: int, start: int) -> pa.Table:
    """The rows with the ranges that the videos have in shards from `start` on, which follow one another.

    The shards of a video do so in the part too: its range stays whole.
    """
    starts, stops = videos["start"].to_numpy(), videos["stop"].to_numpy()
    shards = starts // shard_frames
    shift = start + (np.searchsorted(part.shards, shards) - shards) * shard_frames
    return with_ranges(videos, starts + shift, stops + shift)
