"""Everything that can be wrong with a cache, found by reading all of it."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidlat.store.metadata import FAILURES, RECORDS
from vidlat.store.records import FAILURE_COLUMNS, VIDEO_COLUMNS, latest
from vidlat.store.schema import CacheSchema
from vidlat.store.verify_latents import LatentChecker
from vidlat.store.verify_layout import Layout, read_layout

KINDS = {
    "description": "a zarr.json is damaged, edited, of a newer version, or at odds with another",
    "record": "a record file cannot be read, or a row lacks a value",
    "range": "a record names latent frames that cannot be the video's",
    "overlap": "two records name the same latent frames",
    "missing": "a chunk or a whole shard is not there",
    "damaged": "a chunk or a shard cannot be decoded: its bytes have changed",
    "not-finite": "a chunk holds NaN or infinity",
    "checksum": "the latents are not those that were recorded",
    "statistics": "the recorded sums are not those of the latents",
    "foreign": "a file that is no part of a cache",
    "leftover": "what a killed encode has left behind; harmless",
}
"""Every kind of problem and what it means."""

OWN_FILES = {
    *("zarr.json", "mean/zarr.json", "std/zarr.json", "videos/zarr.json", "failures/zarr.json"),
    f"{RECORDS}/lock",
}
RECORD_FILE = re.compile(r"\d{12,}-\d{12,}\.parquet")
SHARD_FILE = re.compile(r"(?:mean|std)/c/0/(0|[1-9]\d*)/0/0")
LEFTOVER = re.compile(r".*(?:\.__lock|\bpartial|#\d+)")

CHECKED_COLUMNS = [
    *("video_id", "start", "stop", "num_frames", "latent_crc32", "sequence"),
    *("count", "sum_mean", "sum_mean_squared", "sum_std_squared"),
]
OPTIONAL_COLUMNS = {"pts_seconds"}
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    where: a video_id, or a file's path inside the cache. kind: one of KINDS. what: one line for people.
    """

    where: str
    kind: str
    what: str


def verify_cache(path: Path, on_video: Callable[[str, int], None] | None = None) -> Iterator[Problem]:
    """Read the whole cache at `path` and yield every problem; one shard is in memory at a time.

    on_video: called with each video's id and the number of videos once its latents are read. Frames that
    belong to no video are holes and no problem, but shards of holes are not read. Changes nothing, and may
    run while an encode adds to the cache. Raises StoreError if there is no cache at `path`.
    """
    with _drivers_held_off(path):
        layout = read_layout(path)
        records, record_problems = _read_log(path, RECORDS, VIDEO_COLUMNS, CHECKED_COLUMNS)
        _, failure_problems = _read_log(path, FAILURES, FAILURE_COLUMNS, ["video_id"])
    yield from (Problem(where=where, kind=kind, what=what) for where, kind, what in layout.findings)
    yield from record_problems + failure_problems
    suspects = list(_suspects(path, layout.num_shards))
    videos = latest(records).sort_by("start")
    yield from _overlaps(videos)
    yield from _videos_problems(path, layout, videos, on_video)
    # By now a running encode has named what it was writing, and grown the arrays for it.
    num_shards = read_layout(path).num_shards if suspects else None
    for where, file, seen in suspects:
        if _identity(file) == seen and (problem := _file_problem(where, num_shards)):
            yield problem


def count_hole_frames(path: Path) -> int:
    """Latent frames that belong to no video, as far as arrays and records can be read.

    Raises StoreError if there is no cache at `path`.
    """
    with _drivers_held_off(path):
        num_frames = read_layout(path).num_frames or 0
        records, _ = _read_log(path, RECORDS, VIDEO_COLUMNS, CHECKED_COLUMNS)
    videos = latest(records).sort_by("start")
    starts, stops = (np.clip(videos[name].to_numpy(), 0, num_frames) for name in ("start", "stop"))
    # A frame counts once, however many records name it.
    covered_before = np.maximum.accumulate(np.concatenate([[0], stops]))[:-1]
    return num_frames - int(np.maximum(stops - np.maximum(starts, covered_before), 0).sum())


def _videos_problems(
    path: Path, layout: Layout, videos: pa.Table, on_video: Callable[[str, int], None] | None
) -> Iterator[Problem]:
    """What is wrong with each video; latents of a range that cannot be its own are not read."""
    schema, num_frames = layout.schema, layout.num_frames
    if schema is None or num_frames is None:
        return
    checker = LatentChecker(path, schema, num_frames)
    for batch in videos.to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            wrong = [("range", what) for what in _range_faults(row, schema, num_frames)]
            for kind, what in wrong or checker.findings(row):
                yield Problem(where=row["video_id"], kind=kind, what=what)
            if on_video:
                on_video(row["video_id"], len(videos))


def _range_faults(row: dict[str, Any], schema: CacheSchema, num_frames: int) -> Iterator[str]:
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


def _overlaps(videos: pa.Table) -> Iterator[Problem]:
    """Both videos of every record that begins before an earlier one ends; `videos` are sorted by start."""
    farthest: tuple[int, str] = (0, "")
    for batch in videos.select(["start", "stop", "video_id"]).to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            if not 0 <= row["start"] < row["stop"]:
                continue  # no range: told elsewhere
            stop, other = farthest
            if row["start"] < stop:
                shared = f"latent frames {row['start']}-{min(stop, row['stop'])} are named by"
                for one, two in ((row["video_id"], other), (other, row["video_id"])):
                    yield Problem(where=one, kind="overlap", what=f"{shared} {two} too")
            farthest = max(farthest, (row["stop"], row["video_id"]))


def _read_log(
    path: Path, folder: str, columns: pa.Schema, wanted: list[str]
) -> tuple[pa.Table, list[Problem]]:
    """The `wanted` columns of all rows that can be read, and what is wrong with the files of a log."""
    parts, problems = [], []
    for file in sorted((path / folder).glob("*.parquet")):
        if not RECORD_FILE.fullmatch(file.name):
            continue
        where = f"{folder}/{file.name}"
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                _require_columns(parquet.schema_arrow, columns)
                rows, incomplete = _read_rows(parquet, columns, wanted)
        except (pa.ArrowException, OSError, ValueError) as error:
            what = f"cannot be read, nor are its videos known: {' '.join(str(error).split())[:300]}"
            problems.append(Problem(where=where, kind="record", what=what))
            continue
        parts += rows
        for video_id, missing in incomplete:
            what = f"its record in {where} has no {', '.join(missing)}"
            problems.append(Problem(where=video_id or where, kind="record", what=what))
    schema = pa.schema([columns.field(name) for name in wanted])
    # Column by column: the schema of a file may carry notes that this one does not.
    tables = [pa.Table.from_arrays(part.columns, schema=schema) for part in parts]
    return pa.concat_tables([schema.empty_table(), *tables]), problems


def _require_columns(found: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        index = found.get_field_index(field.name)
        if index < 0 or found.field(index).type != field.type:
            has = "no such column" if index < 0 else str(found.field(index).type)
            raise ValueError(f"column {field.name}: expected {field.type}, found {has}")


def _read_rows(
    parquet: pq.ParquetFile, columns: pa.Schema, wanted: list[str]
) -> tuple[list[pa.RecordBatch], list[tuple[str | None, list[str]]]]:
    """The complete rows, and of each incomplete one its video_id and the columns without a value."""
    rows, incomplete = [], []
    required = [name for name in columns.names if name not in OPTIONAL_COLUMNS]
    # All columns, though few are needed: damage is found in any of them.
    for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE):
        batch.validate(full=True)
        has_all = reduce(pc.and_, (batch[name].is_valid() for name in required))
        rows.append(batch.filter(has_all).select(wanted))
        for row in batch.filter(pc.invert(has_all)).select(required).to_pylist():
            incomplete.append((row["video_id"], [name for name in required if row[name] is None]))
    return rows, incomplete


def _suspects(path: Path, num_shards: int | None) -> Iterator[tuple[str, Path, object]]:
    """Files that do not belong: name inside the cache, path, and what tells it from a later namesake."""
    unfinished = path.absolute().with_name(f".{path.absolute().name}.partial")
    if unfinished.exists():
        yield f"../{unfinished.name}", unfinished, _identity(unfinished)
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            where = file.relative_to(path).as_posix()
            if _file_problem(where, num_shards):
                yield where, file, _identity(file)


def _file_problem(where: str, num_shards: int | None) -> Problem | None:
    """What is wrong with a file being there: None if it is part of a cache of `num_shards` (None: any)."""
    folder, _, name = where.rpartition("/")
    if where in OWN_FILES or (folder in (RECORDS, FAILURES) and RECORD_FILE.fullmatch(name)):
        return None
    kind, what = "foreign", "is no part of a cache"
    if shard := SHARD_FILE.fullmatch(where):
        if num_shards is None or int(shard[1]) < num_shards:
            return None
        what = f"lies past the end of the array, which has {num_shards} shards"
    elif LEFTOVER.fullmatch(where):
        kind, what = "leftover", "a kill has left it; nothing needs it"
    # A name need not be text; a problem is.
    return Problem(where=os.fsencode(where).decode("utf-8", "backslashreplace"), kind=kind, what=what)


def _identity(file: Path) -> object:
    with suppress(OSError):
        stat = file.lstat()
        return stat.st_ino, stat.st_mtime_ns
    return None


@contextmanager
def _drivers_held_off(path: Path) -> Iterator[None]:
    """No driver grows, commits or merges meanwhile, where the cache has a lock that can be held."""
    try:
        handle = (path / RECORDS / "lock").open("rb")
    except OSError:
        yield
        return
    with handle:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
