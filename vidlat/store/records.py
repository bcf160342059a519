"""Records as Parquet tables, one row a video, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidlat.store.sources import recorded_place
from vidlat.types import Annotation, FailureRecord, VideoRecord, VideoSource

VIDEO_COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("num_frames", pa.int64()),
        ("fps", pa.float64()),
        ("pts_seconds", pa.list_(pa.float64())),
        ("source_path", pa.string()),
        ("source_num_bytes", pa.int64()),
        ("source_mtime_ns", pa.int64()),
        ("source_sha256", pa.string()),
        ("source_height", pa.int32()),
        ("source_width", pa.int32()),
        ("latent_crc32", pa.int64()),
        ("count", pa.int64()),
        ("sum_mean", pa.list_(pa.float64())),
        ("sum_mean_squared", pa.list_(pa.float64())),
        ("sum_std_squared", pa.list_(pa.float64())),
        ("warnings", pa.list_(pa.string())),
        ("versions", pa.map_(pa.string(), pa.string())),
        ("device", pa.string()),
        ("batch", pa.int32()),
        ("source_selection", pa.string()),
        ("value_range", pa.list_(pa.float64())),
        ("box", pa.list_(pa.int32())),
        ("subject", pa.string()),
        ("labels", pa.map_(pa.string(), pa.string())),
        ("sequence", pa.int64()),
    ]
)

SOURCE_COLUMNS = ("source_path", "source_num_bytes", "source_mtime_ns", "source_sha256", "source_selection")
"""The columns of a CachedSource, in its order."""

FAILURE_COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("source_path", pa.string()),
        ("source_num_bytes", pa.int64()),
        ("source_mtime_ns", pa.int64()),
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("traceback", pa.string()),
        ("source_selection", pa.string()),
        ("sequence", pa.int64()),
    ]
)


def to_table(records: Sequence[VideoRecord | FailureRecord], columns: pa.Schema, sequence: int) -> pa.Table:
    """The records of one commit as a table, each row with the commit's sequence number."""
    rows = [
        {name: _to_cell(value) for name, value in dataclasses.asdict(record).items()} for record in records
    ]
    return pa.Table.from_pylist([row | {"sequence": sequence} for row in rows], schema=columns)


def to_video_records(table: pa.Table) -> dict[str, VideoRecord]:
    """The rows of a table as records, by video_id, in the table's order."""
    rows: list[dict[str, Any]] = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in table.to_pylist(maps_as_pydicts="strict")
    ]
    return {row["video_id"]: VideoRecord(**row) for row in rows}


def with_sources(table: pa.Table, sources: Sequence[VideoSource], sequence: int) -> pa.Table:
    """The rows of the videos among `sources`, as a commit that says where their files are now, and whose."""
    now = {source.video_id: source for source in sources}
    table = table.filter(pc.is_in(table["video_id"], value_set=pa.array(now, pa.string())))
    found = [now[video_id] for video_id in table["video_id"].to_pylist()]
    old = zip(table["subject"].to_pylist(), table["labels"].to_pylist(maps_as_pydicts="strict"), strict=True)
    annotations = [source.annotation or Annotation(*known) for source, known in zip(found, old, strict=True)]
    changes: dict[str, list[Any]] = {
        "source_path": [_to_cell(recorded_place(source)[0]) for source in found],
        "source_mtime_ns": [source.mtime_ns for source in found],
        "subject": [_to_cell(annotation.subject) for annotation in annotations],
        "labels": [_to_cell(dict(annotation.labels)) for annotation in annotations],
        "sequence": [sequence] * len(found),
    }
    for name, values in changes.items():
        index = table.schema.get_field_index(name)
        column = table.schema.field(index)
        table = table.set_column(index, column, pa.array(values, column.type))
    return table


def to_failure_records(table: pa.Table) -> dict[str, FailureRecord]:
    """The rows of a table as records, by video_id, in the table's order."""
    return {row["video_id"]: FailureRecord(**row) for row in table.to_pylist()}


def tombstone(video_id: str) -> VideoRecord:
    """The row that removes a video: a record without frames."""
    return VideoRecord(
        video_id=video_id,
        start=0,
        stop=0,
        num_frames=0,
        fps=0.0,
        pts_seconds=None,
        source_path="",
        source_num_bytes=0,
        source_mtime_ns=0,
        source_sha256="",
        source_height=0,
        source_width=0,
        latent_crc32=0,
        count=0,
        sum_mean=(),
        sum_mean_squared=(),
        sum_std_squared=(),
        warnings=(),
        versions={},
        device="",
        batch=0,
    )


def without_removed(table: pa.Table) -> pa.Table:
    """The rows of a table of videos that are no tombstones; of each video, give the latest row alone."""
    return table.filter(pc.not_equal(table["num_frames"], 0))


def standing(failures: pa.Table, committed: pa.Table) -> pa.Table:
    """The failures that are later than what was last `committed` of their video, a record or a tombstone.

    Both tables hold one row a video, with video_id and sequence.
    """
    rows = pc.index_in(failures["video_id"], value_set=committed["video_id"].combine_chunks())
    sequence = pc.fill_null(committed["sequence"].combine_chunks().take(rows.combine_chunks()), 0)
    return failures.filter(pc.greater(failures["sequence"], sequence))


def latest(table: pa.Table) -> pa.Table:
    """One row a video, that of the highest sequence number, sorted by video_id."""
    ids = table["video_id"].combine_chunks()
    # As one file has them, or one after another: nothing to sort, half a second a million rows.
    if pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
        return table
    # The order alone is sorted, eight bytes a row: a sorted copy of the table would be twice the memory.
    order = pc.sort_indices(table, sort_keys=[("video_id", "ascending"), ("sequence", "ascending")])
    ids = ids.take(order)
    is_followed_by_another = pc.not_equal(ids[1:], ids[:-1])
    del ids
    last = len(order) - 1
    return table.take(pa.concat_arrays([order[:last].filter(is_followed_by_another), order[last:]]))


def _to_cell(value: Any) -> Any:
    if isinstance(value, str):
        # A path may hold bytes that are no UTF-8; a record that cannot be written would stop everything.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, tuple):
        return [_to_cell(item) for item in value]
    if isinstance(value, dict):
        return [(_to_cell(key), _to_cell(item)) for key, item in value.items()]
    return value
