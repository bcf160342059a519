"""How many bytes a prune gives back to the disk: what it deletes, less what it writes in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from vidlat.store.latents.shard import index_size
from vidlat.store.layout import ARRAYS, FAILURES, RECORDS, record_file
from vidlat.store.records.log import RecordSnapshot, to_parquet
from vidlat.store.records.manifest import Manifest, RecordFile
from vidlat.store.records.tables import to_dropped
from vidlat.store.schema import CacheSchema
from vidlat.store.storage import filesystem

Video = TypeVar("Video")


class FileBytes(NamedTuple):
    """Bytes of files: own, which the disk gets back when they are deleted; kept, by other names of them."""

    own: int
    kept: int


def bytes_of_files(files: Iterable[Path]) -> FileBytes:
    """The bytes of files, 0 for a missing one."""
    own = kept = 0
    for num_bytes, num_names in map(filesystem.size_and_names, files):
        if num_names == 1:
            own += num_bytes
        else:
            kept += num_bytes
    return FileBytes(own, kept)


def batches_to_move(
    videos: Iterable[Video], length: Callable[[Video], int], schema: CacheSchema
) -> Iterator[list[Video]]:
    """Group videos, in their order, into batches that fit into one shard; length: latent frames of one."""
    batch: list[Video] = []
    for video in videos:
        if batch and schema.num_shards([length(each) for each in [*batch, video]]) > 1:
            yield batch
            batch = []
        batch.append(video)
    if batch:
        yield batch


def bytes_of_copies(schema: CacheSchema, lengths: Sequence[int], num_moved_bytes: int) -> int:
    """Bytes of the shards into which videos of these lengths are moved, whose chunks have that size."""
    batches = batches_to_move(lengths, int, schema)
    num_shards = sum(schema.num_shards(batch) for batch in batches)
    return num_moved_bytes + num_shards * len(ARRAYS) * index_size(schema.shard_frames // schema.chunk_frames)


def bytes_of_old_records(records: RecordSnapshot, removed: Collection[str], excluded: Sequence[str]) -> int:
    """By how much record files and manifest shrink when they are rewritten without `removed`.

    excluded: ids that are then recorded as dropped. Holds all kept rows in memory, as the rewriting does.
    """
    before = records.manifest
    failures = records.standing_failures()
    tables = {
        RECORDS: _without(records.videos.read(), removed),
        FAILURES: pa.concat_tables(
            [_without(failures, {*removed, *excluded}), to_dropped(excluded, before.sequence)]
        ),
    }
    new = [
        RecordFile.of(f"{folder}/{record_file(1, before.sequence)}", to_parquet(rows), len(rows))
        for folder, rows in tables.items()
        if len(rows)
    ]
    after = replace(before, files=tuple(new))
    return _num_bytes(before) - _num_bytes(after)


def _num_bytes(manifest: Manifest) -> int:
    return sum(file.num_bytes for file in manifest.files) + len(manifest.to_json())


def _without(rows: pa.Table, video_ids: Collection[str]) -> pa.Table:
    ids = pa.array(sorted(video_ids), pa.string())
    return rows.filter(pc.invert(pc.is_in(rows["video_id"], value_set=ids)))
