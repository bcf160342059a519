"""Records as Parquet tables, one row per video, and back: the columns follow from the record classes."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError
from vidlat.store.sources import recorded_path
from vidlat.types import WHOLE, Annotation, FailureRecord, InputVideo, Selection, Source, VideoRecord

Integers = npt.NDArray[np.int64]

Record = TypeVar("Record", VideoRecord, FailureRecord)

_TEXTS = pa.map_(pa.string(), pa.string())

_ARROW_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bytes: pa.binary(),
    Selection: pa.string(),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[int, ...]: pa.list_(pa.int64()),
    tuple[float, ...]: pa.list_(pa.float64()),
    tuple[float, ...] | None: pa.list_(pa.float64()),
    dict[str, str]: _TEXTS,
    Mapping[str, str]: _TEXTS,
}


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(typing.get_type_hints(kind).items())


def _columns(kind: type, prefix: str = "") -> list[tuple[str, pa.DataType]]:
    """Name and type of each column; the fields of a nested value follow its name and an underscore."""
    columns = []
    for name, annotation in _fields(kind):
        if arrow_type := _ARROW_TYPES.get(annotation):
            columns.append((prefix + name, arrow_type))
        else:
            columns += _columns(annotation, f"{prefix}{name}_")
    return columns


VIDEO_COLUMNS = pa.schema(_columns(VideoRecord))
FAILURE_COLUMNS = pa.schema(_columns(FailureRecord))
SOURCE_COLUMNS = tuple(name for name, _ in _columns(Source, "source_"))
ANNOTATION_COLUMNS = tuple(name for name, _ in _columns(Annotation, "annotation_"))

DROPPED = "dropped"
"""The kind of failure of a video that was removed by its id: no encode tries it again unless asked to."""


def to_table(records: Sequence[VideoRecord | FailureRecord], columns: pa.Schema, sequence: int) -> pa.Table:
    """The records of one commit as a table, each row with the commit's sequence number."""
    rows = [to_row(record) | {"sequence": sequence} for record in records]
    return pa.Table.from_pylist(rows, schema=columns)


def to_row(record: VideoRecord | FailureRecord) -> dict[str, Any]:
    """A record's cells by column."""
    return dict(_cells(record))


def _cells(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, annotation in _fields(value.__class__):
        cell = getattr(value, name)
        if annotation in _ARROW_TYPES:
            yield prefix + name, _to_cell(cell)
        else:
            yield from _cells(cell, f"{prefix}{name}_")


def _to_cell(value: Any) -> Any:
    if isinstance(value, str):
        # A path may hold bytes that are not UTF-8; a record that cannot be written would stop everything.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Selection):
        return value.to_text()
    if isinstance(value, tuple):
        return [_to_cell(item) for item in value]
    if isinstance(value, Mapping):
        return [(_to_cell(key), _to_cell(item)) for key, item in value.items()]
    return value


def to_video_records(table: pa.Table) -> dict[str, VideoRecord]:
    """The rows of a table as records, by video_id, in the table's order."""
    return _to_records(VideoRecord, table)


def to_failure_records(table: pa.Table) -> dict[str, FailureRecord]:
    """The rows of a table as records, by video_id, in the table's order."""
    return _to_records(FailureRecord, table)


def _to_records(kind: type[Record], table: pa.Table) -> dict[str, Record]:
    rows = table.to_pylist(maps_as_pydicts="strict")
    return {row["video_id"]: _from_cells(kind, row) for row in rows}


def _from_cells(kind: Any, row: dict[str, Any], prefix: str = "") -> Any:
    if kind is Source:
        return to_source(*(row[prefix + name] for name in Source._fields))
    values = {}
    for name, annotation in _fields(kind):
        if annotation in _ARROW_TYPES:
            cell = row[prefix + name]
            values[name] = tuple(cell) if isinstance(cell, list) else cell
        else:
            values[name] = _from_cells(annotation, row, f"{prefix}{name}_")
    return kind(**values)


def to_source(path: str, num_bytes: int, mtime_ns: int, sha256: str, selection: str) -> Source:
    """A source from its SOURCE_COLUMNS; raises StoreError for a damaged selection."""
    try:
        chosen = Selection.from_text(selection) if selection else WHOLE
    except ValueError as error:
        raise StoreError(f"{path}: its record is damaged: {error}; encode the video again") from error
    return Source(recorded_path(path), num_bytes, mtime_ns, sha256, chosen)


def with_sources(table: pa.Table, videos: Sequence[InputVideo], sequence: int) -> pa.Table:
    """The rows of these videos with the present path and time of their source, and their annotation if given.

    sequence: of the commit that the new rows are for.
    """
    now = {video.video_id: video for video in videos}
    table = table.filter(pc.is_in(table["video_id"], value_set=pa.array(now, pa.string())))
    found = [now[video_id] for video_id in table["video_id"].to_pylist()]
    known = to_annotations(table)
    annotations = [video.annotation or old for video, old in zip(found, known, strict=True)]
    changes: dict[str, list[Any]] = {
        "source_path": [_to_cell(video.recorded_source.path) for video in found],
        "source_mtime_ns": [video.source.mtime_ns for video in found],
        "annotation_subject": [_to_cell(annotation.subject) for annotation in annotations],
        "annotation_labels": [_to_cell(annotation.labels) for annotation in annotations],
    }
    for name, values in changes.items():
        table = _with_column(table, name, values)
    return with_sequence(table, sequence)


def with_sequence(table: pa.Table, sequence: int) -> pa.Table:
    """The same rows with another sequence number."""
    return _with_column(table, "sequence", [sequence] * len(table))


def with_ranges(table: pa.Table, starts: Integers, stops: Integers) -> pa.Table:
    """The rows of videos that lie elsewhere: starts, stops (N,)."""
    return _with_column(_with_column(table, "start", starts), "stop", stops)


def _with_column(table: pa.Table, name: str, values: Sequence[Any] | Integers) -> pa.Table:
    index = table.schema.get_field_index(name)
    column = table.schema.field(index)
    return table.set_column(index, column, pa.array(values, column.type))


def to_annotations(table: pa.Table) -> list[Annotation]:
    """The annotation of each row of a table with ANNOTATION_COLUMNS."""
    columns = (table[name].to_pylist(maps_as_pydicts="strict") for name in ANNOTATION_COLUMNS)
    return list(map(Annotation, *columns))


def to_tombstones(video_ids: Sequence[str], sequence: int) -> pa.Table:
    """The rows that remove videos: no frames, and nothing else but their sequence number."""
    rows = [{"video_id": video_id, "num_frames": 0, "sequence": sequence} for video_id in video_ids]
    return pa.Table.from_pylist(rows, schema=VIDEO_COLUMNS)


def to_dropped(video_ids: Sequence[str], sequence: int) -> pa.Table:
    """The rows of failures that say that videos are never to be encoded: nothing but their ids is kept."""
    nothing = Source("", 0, 0)
    reason = "removed by `vidlat prune --drop`"
    records = [
        FailureRecord(video_id=video_id, source=nothing, kind=DROPPED, reason=reason)
        for video_id in video_ids
    ]
    return to_table(records, FAILURE_COLUMNS, sequence)


def without_removed(table: pa.Table) -> pa.Table:
    """The rows of a table of videos that are not tombstones; the table holds only each video's latest row."""
    return table.filter(pc.not_equal(table["num_frames"], 0))


def standing(failures: pa.Table, committed: pa.Table) -> pa.Table:
    """The failures that no later `committed` row of their video supersedes, be it a tombstone.

    Both tables hold one row per video, with video_id and sequence.
    """
    rows = pc.index_in(failures["video_id"], value_set=committed["video_id"].combine_chunks())
    sequence = pc.fill_null(committed["sequence"].combine_chunks().take(rows.combine_chunks()), 0)
    return failures.filter(pc.greater_equal(failures["sequence"], sequence))


def latest(table: pa.Table) -> pa.Table:
    """The row with the highest sequence number of every video, sorted by video_id."""
    ids = table["video_id"].combine_chunks()
    # Often sorted already, which saves half a second per million rows.
    if pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
        return table
    # Indices are sorted, at eight bytes per row, since a sorted copy of the table would double the memory.
    order = pc.sort_indices(table, sort_keys=[("video_id", "ascending"), ("sequence", "ascending")])
    ids = ids.take(order)
    is_followed_by_another = pc.not_equal(ids[1:], ids[:-1])
    del ids
    last = len(order) - 1
    return table.take(pa.concat_arrays([order[:last].filter(is_followed_by_another), order[last:]]))
