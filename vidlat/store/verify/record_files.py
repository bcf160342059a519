"""Problems of record files: of the files, their rows, and the ranges that the rows name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidlat.errors import one_line
from vidlat.store import filesystem
from vidlat.store.layout import record_files
from vidlat.store.records import latest
from vidlat.store.schema import CacheSchema
from vidlat.store.verify.problem import Problem

OPTIONAL_COLUMNS = {"pts_seconds"}
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class IncompleteRow:
    """A row that lacks values. file: relative to the cache. missing: the columns without a value."""

    file: str
    video_id: str | None
    sequence: int | None
    missing: list[str]

    @property
    def is_nameless(self) -> bool:
        """Whether its video or commit is unknown, so that no later row can supersede it."""
        return self.video_id is None or self.sequence is None

    @property
    def problem(self) -> Problem:
        """The row as a problem."""
        what = f"its record in {self.file} has no {', '.join(self.missing)}"
        is_video = self.video_id is not None and not self.is_nameless
        return Problem(where=self.video_id or self.file, kind="record", what=what, is_video=is_video)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReading:
    """What can be read of a log.

    rows: the wanted columns of all complete rows. damaged: why a file cannot be read, by its path relative to
    the cache. incomplete: the other rows, except those that a later row supersedes.
    """

    rows: pa.Table
    damaged: dict[str, str]
    incomplete: list[IncompleteRow]

    @property
    def problems(self) -> list[Problem]:
        """The problems of the files and their rows."""
        lost = "cannot be read, so its videos are unknown"
        return [
            *(
                Problem(where=file, kind="record", what=f"{lost}: {why}")
                for file, why in self.damaged.items()
            ),
            *(row.problem for row in self.incomplete),
        ]


def read_log(path: Path, folder: str, columns: pa.Schema, wanted: list[str]) -> LogReading:
    """Read all files of the log in `folder` of the cache at `path`.

    wanted: columns, video_id and sequence among them.
    """
    parts: list[pa.RecordBatch] = []
    damaged: dict[str, str] = {}
    incomplete: list[IncompleteRow] = []
    for file in record_files(path / folder):
        where = f"{folder}/{file.name}"
        try:
            with pq.ParquetFile(filesystem.open_input(file), page_checksum_verification=True) as parquet:
                _require_columns(parquet.schema_arrow, columns)
                rows, lacking = _read_rows(parquet, where, columns, wanted)
        except (pa.ArrowException, OSError, ValueError) as error:
            damaged[where] = one_line(error)[:300]
            continue
        parts += rows
        incomplete += lacking
    schema = pa.schema([columns.field(name) for name in wanted])
    # Column by column: the schema of a file may carry notes that this one does not.
    tables = [pa.Table.from_arrays(part.columns, schema=schema) for part in parts]
    table = pa.concat_tables([schema.empty_table(), *tables])
    return LogReading(rows=table, damaged=damaged, incomplete=_not_superseded(incomplete, table))


def range_faults(row: Mapping[str, Any], schema: CacheSchema, num_frames: int) -> Iterator[str]:
    """Why the range of a record is impossible in arrays of `num_frames` latent frames."""
    start, stop = row["start"], row["stop"]
    named = f"its record names latent frames {start}-{stop}"
    if not 0 <= start < stop:
        yield f"{named}, which is no range"
    if stop > num_frames:
        yield f"{named}, but the arrays end at {num_frames}"
    if start % schema.chunk_frames:
        yield f"{named}, which starts inside a chunk of {schema.chunk_frames}"
    num_stacks = -(-row["num_frames"] // schema.settings.stack)
    expected = num_stacks * schema.settings.stack // schema.time_compression
    if stop - start != expected:
        yield f"{named}, but {row['num_frames']} frames in stacks of {schema.settings.stack} give {expected}"


def overlaps(videos: pa.Table) -> Iterator[Problem]:
    """A problem for both videos of every overlap; `videos` are sorted by start."""
    farthest: tuple[int, str] = (0, "")
    for batch in videos.select(["start", "stop", "video_id"]).to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            if not 0 <= row["start"] < row["stop"]:
                continue  # reported by `range_faults`
            stop, other = farthest
            if row["start"] < stop:
                shared = f"latent frames {row['start']}-{min(stop, row['stop'])} are named by"
                for one, two in ((row["video_id"], other), (other, row["video_id"])):
                    yield Problem(where=one, kind="overlap", what=f"{shared} {two} too", is_video=True)
            farthest = max(farthest, (row["stop"], row["video_id"]))


def _require_columns(found: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        index = found.get_field_index(field.name)
        if index < 0 or found.field(index).type != field.type:
            has = "no such column" if index < 0 else str(found.field(index).type)
            raise ValueError(f"column {field.name}: expected {field.type}, found {has}")


def _read_rows(
    parquet: pq.ParquetFile, where: str, columns: pa.Schema, wanted: list[str]
) -> tuple[list[pa.RecordBatch], list[IncompleteRow]]:
    """The complete rows of a file, and the others."""
    rows, incomplete = [], []
    required = [name for name in columns.names if name not in OPTIONAL_COLUMNS]
    # All columns are read, to find damage in any of them.
    for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE):
        batch.validate(full=True)
        has_all = _has_all(batch, required)
        rows.append(batch.filter(has_all).select(wanted))
        for row in batch.filter(pc.invert(has_all)).select(required).to_pylist():
            missing = [name for name in required if row[name] is None]
            incomplete.append(
                IncompleteRow(file=where, video_id=row["video_id"], sequence=row["sequence"], missing=missing)
            )
    return rows, incomplete


def _has_all(batch: pa.RecordBatch, required: list[str]) -> pa.Array:
    """Which rows lack no value; a tombstone has only a few."""
    is_complete = reduce(pc.and_, (batch[name].is_valid() for name in required))
    if "num_frames" not in required:
        return is_complete
    is_tombstone = pc.fill_null(pc.equal(batch["num_frames"], 0), False)
    has_key = pc.and_(batch["video_id"].is_valid(), batch["sequence"].is_valid())
    return pc.or_(is_complete, pc.and_(is_tombstone, has_key))


def _not_superseded(incomplete: list[IncompleteRow], rows: pa.Table) -> list[IncompleteRow]:
    """The rows without a later, complete row of the same video."""
    if not incomplete:
        return []
    newest = latest(rows)
    last = dict(zip(newest["video_id"].to_pylist(), newest["sequence"].to_pylist(), strict=True))
    return [
        row
        for row in incomplete
        if row.video_id is None or row.sequence is None or last.get(row.video_id, 0) <= row.sequence
    ]
