"""Commit records on disk: Parquet files to which commits only add, until prune rewrites them.

The manifest names the files that count. A commit creates its files and then replaces the manifest, so that it
happens as a whole or not at all; what it makes superfluous is deleted afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidlat.errors import StoreError, is_out_of_memory, one_line
from vidlat.store.layout import (
    FAILURES,
    LAST_COMMIT,
    RECORDS,
    commits_of,
    is_record_file,
    record_file,
    record_files,
)
from vidlat.store.process import require_room
from vidlat.store.records.manifest import (
    REPAIR,
    Committed,
    Manifest,
    RecordFile,
    commit_manifest,
    read_committed,
    read_manifest,
)
from vidlat.store.records.parquet_pages import read_pages
from vidlat.store.records.tables import (
    DROPPED,
    FAILURE_COLUMNS,
    VIDEO_COLUMNS,
    latest,
    standing,
    without_removed,
)
from vidlat.store.records.values import require_selections, require_sound
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Missing, Storage, TooLarge, Unreachable
from vidlat.store.storage.local import LocalStorage

COLUMNS = {RECORDS: VIDEO_COLUMNS, FAILURES: FAILURE_COLUMNS}
"""The columns of the record files in each folder."""

BLOCK_BYTES = 2**20
ROWS_AT_ONCE = 1000

MOST_UNPACKED = 200
"""Values, or bytes of them, for each byte of a record file."""


class RecordSnapshot:
    """The records of one moment, whose files stay open and so stay readable after their deletion.

    Takes one file descriptor per file: about 64, and one per 50,000 videos.
    """

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        """Open and check every file. Raises Missing for a missing one, StoreError for another."""
        self.manifest = manifest
        self.videos, self.failures = (
            RecordTable(
                storage.where,
                [(open_record_file(storage, file), file.num_rows) for file in manifest.files_in(folder)],
                columns,
            )
            for folder, columns in COLUMNS.items()
        )

    def standing_failures(self, columns: Sequence[str] | None = None) -> pa.Table:
        """`columns` of the failures whose video was not encoded or removed later."""
        return standing(self.failures.read(columns), self.videos.read_with_removed(["video_id", "sequence"]))


class RecordTable:
    """The records of one kind in a snapshot."""

    def __init__(self, where: str, files: Sequence[tuple[pa.NativeFile, int]], columns: pa.Schema) -> None:
        """files: opened, each with its number of rows."""
        self._where = where
        self._files = files
        self._columns = columns

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The latest row of every video that was not removed, sorted by video_id.

        columns: None for all; video_id and sequence are always included. Raises StoreError if a file is
        damaged.
        """
        names = self._columns.names if columns is None else ["video_id", "sequence", *columns]
        return self._sound(self._concatenated(names).take(self._rows[1]))

    def read_with_removed(self, names: Sequence[str]) -> pa.Table:
        """The columns `names` of the latest row of every video, removed ones included, sorted by video_id."""
        return self._concatenated(names).take(self._rows[0])

    def read_sizes(self, name: str) -> pa.ChunkedArray:
        """The bytes of the binary column `name` in each row of `read`; raises like it."""
        column = pa.schema([self._columns.field(name)])
        # File by file: checksums are most of a record, and all of them take more memory than the rest.
        sizes = [
            pc.binary_length(read_rows(file, column, num_rows)[name]).combine_chunks()
            for file, num_rows in self._files
        ]
        table = pa.table({name: pa.chunked_array(sizes, pa.int32())}).take(self._rows[1])
        return self._sound(table)[name]

    def _sound(self, rows: pa.Table) -> pa.Table:
        try:
            require_sound(rows)
        except StoreError as error:
            raise StoreError(f"{self._where}: damaged: {error}; {REPAIR}") from error
        return rows

    @cached_property
    def _rows(self) -> tuple[pa.Array, pa.Array]:
        """Indices of the latest rows, sorted by video_id: of all videos, and of those not removed."""
        names = [name for name in ("video_id", "sequence", "num_frames") if name in self._columns.names]
        keys = self._concatenated(names)
        keys = latest(keys.append_column("row", pa.array(np.arange(len(keys)))))
        # Computed once and kept, at eight bytes per video.
        rows = keys["row"].combine_chunks()
        return rows, without_removed(keys)["row"].combine_chunks() if "num_frames" in names else rows

    def _concatenated(self, names: Sequence[str]) -> pa.Table:
        columns = pa.schema([self._columns.field(name) for name in names])
        tables = (read_rows(file, columns, num_rows) for file, num_rows in self._files)
        return pa.concat_tables([columns.empty_table(), *tables])


def read_records(storage: Storage, attempts: int = 100) -> RecordSnapshot:
    """The records of a cache as they are now.

    attempts: how often merges may interfere. Raises StoreError if the manifest or a file that it names is
    missing or damaged.
    """
    for _ in range(attempts):
        manifest = read_manifest(storage)
        try:
            return RecordSnapshot(storage, manifest)
        except Missing as error:
            if read_manifest(storage) == manifest:
                raise StoreError(f"{storage.where}: damaged: {error}; {REPAIR}") from error
            # Merged since the manifest was read: its rows are in a newer file.
    raise StoreError(f"{storage.where}: its record files vanish while they are read; try again")


def dropped_videos(records: RecordSnapshot) -> list[str]:
    """Sorted ids of the videos that were removed by their id and not encoded since."""
    if not records.manifest.files_in(FAILURES):
        return []  # saves a walk through the records of all videos
    failures = records.standing_failures(["kind"])
    ids: list[str] = failures.filter(pc.equal(failures["kind"], DROPPED))["video_id"].to_pylist()
    return ids


def last_sequence(storage: Storage) -> int:
    """The number of the last commit to a cache, of videos or failures; 0 before the first."""
    return read_manifest(storage).sequence


def append(storage: Storage, state: Committed, tables: Mapping[str, Callable[[int], pa.Table]]) -> Committed:
    """Commit rows to a cache, all at once; returns its new state.

    state: as the caller knows it. tables: by folder, the rows to add, given the number of the commit. In a
    folder the caller holds the cache's lock. Elsewhere Changed is raised if the cache is in another state.
    """
    sequence = _next_sequence(storage, state.manifest)
    new = [_create(storage, folder, (sequence, sequence), rows(sequence)) for folder, rows in tables.items()]
    manifest = replace(state.manifest, sequence=sequence, files=(*state.manifest.files, *new))
    return commit_manifest(storage, manifest, state.version)


def merge(storage: Storage, state: Committed, folder: str, files: Sequence[RecordFile]) -> Committed:
    """Merge record files of a folder into one; raises like `append`."""
    rows = latest(pa.concat_tables(read_record_file(storage, file) for file in files))
    return _supersede(storage, state, files, {folder: rows})


def compact(storage: Storage) -> None:
    """Rewrite the records without old rows, tombstones and the rows that tombstones hide.

    Holds all kept rows in memory, 1 to 2 kB each. The caller holds the cache's lock.
    """
    state = read_committed(storage)
    snapshot = RecordSnapshot(storage, state.manifest)
    manifest = replace(state.manifest, sequence=_next_sequence(storage, state.manifest))
    tables = {RECORDS: snapshot.videos.read(), FAILURES: snapshot.standing_failures()}
    _supersede(storage, state._replace(manifest=manifest), manifest.files, tables)


def _supersede(
    storage: Storage, state: Committed, files: Sequence[RecordFile], tables: Mapping[str, pa.Table]
) -> Committed:
    """Replace record files by one per folder, with the rows given; returns the new state."""
    manifest = state.manifest
    first = min((commits_of(file.where)[0] for file in files), default=1)
    new = [
        _create(storage, folder, (first, manifest.sequence), rows)
        for folder, rows in tables.items()
        if len(rows)
    ]
    manifest = replace(manifest, files=(*(file for file in manifest.files if file not in files), *new))
    state = commit_manifest(storage, manifest, state.version)
    # Whoever has just read the former manifest misses them, and reads the new one.
    if isinstance(storage, LocalStorage):
        for file in files:
            filesystem.delete(storage.folder / file.where)
    else:
        storage.delete(*(file.where for file in files))
    return state


def _next_sequence(storage: Storage, manifest: Manifest) -> int:
    # Files that a killed process left keep their names, and so their numbers.
    last = max([manifest.sequence, *(commits_of(where)[1] for where in _stored_files(storage))])
    if last >= LAST_COMMIT:
        raise StoreError(f"{storage.where}: no commit can follow number {last}; encode into another --out")
    return last + 1


def _stored_files(storage: Storage) -> list[str]:
    """Every record file relative to the cache, whether or not the manifest names it."""
    if isinstance(storage, LocalStorage):
        folders = {folder: record_files(storage.folder / folder) for folder in COLUMNS}
        return [f"{folder}/{file.name}" for folder, files in folders.items() for file in files]
    return [key for folder in COLUMNS for key, _ in storage.list(folder) if is_record_file(key)]


def roll_forward(storage: Storage, state: Committed) -> Committed:
    """Complete commits that a killed process had written but not made; raises like `append`."""
    if new := uncommitted_files(storage, state.manifest):
        sequence = max(commits_of(file.where)[1] for file in new)
        manifest = replace(state.manifest, sequence=sequence, files=(*state.manifest.files, *new))
        return commit_manifest(storage, manifest, state.version)
    return state


def uncommitted_files(storage: Storage, manifest: Manifest) -> list[RecordFile]:
    """The files of commits that a killed process did not complete; other unnamed files are superseded."""
    new = [where for where in _stored_files(storage) if commits_of(where)[0] > manifest.sequence]
    return describe_record_files(storage, new)[0]


def describe_record_files(
    storage: Storage, files: Sequence[str] | None = None
) -> tuple[list[RecordFile], dict[str, StoreError]]:
    """Describe record files as they are on disk, all unless named; and why others cannot be read."""
    described: list[RecordFile] = []
    damaged: dict[str, StoreError] = {}
    for where in _stored_files(storage) if files is None else files:
        try:
            content, _ = storage.read(where)
            file = RecordFile.of(where, content, num_rows=0)
            num_rows = len(read_checked(storage, file, ["sequence"]))
        except Unreachable:
            raise
        except StoreError as error:
            damaged[where] = StoreError(f"{storage.where}: {where} cannot be read: {error}")
        else:
            described.append(replace(file, num_rows=num_rows))
    return described, damaged


def _create(storage: Storage, folder: str, commits: tuple[int, int], rows: pa.Table) -> RecordFile:
    content = to_parquet(rows)
    where = f"{folder}/{record_file(*commits)}"
    if isinstance(storage, LocalStorage):
        filesystem.create_file(storage.folder / where, content)
    else:
        storage.create(where, content)
    return RecordFile.of(where, content, num_rows=len(rows))


def to_parquet(table: pa.Table) -> bytes:
    """A table as the content of a record file."""
    sink = pa.BufferOutputStream()
    # Plain values, which zstd compresses as well, and whose size in memory a file states: see _open_parquet.
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, use_dictionary=False)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def open_record_file(storage: Storage, file: RecordFile) -> pa.NativeFile:
    """Open a record file of a cache and compare it with the manifest.

    Raises Missing if there is none, StoreError if it is not what was committed.
    """
    where = storage.where
    try:
        handle = storage.open(file.where, file.num_bytes)
        crc32c = num_bytes = 0
        while block := handle.read(BLOCK_BYTES):
            crc32c = google_crc32c.extend(crc32c, block)
            num_bytes += len(block)
        handle.seek(0)
    except Missing:
        raise Missing(f"{file.where} is missing") from None
    except TooLarge as error:
        raise StoreError(f"{where}: damaged: {file.where} is not what was committed; {REPAIR}") from error
    except OSError as error:
        raise StoreError(f"{where}: {file.where} cannot be read: {error}") from error
    if (num_bytes, crc32c) != (file.num_bytes, file.crc32c):
        raise StoreError(f"{where}: damaged: {file.where} is not what was committed; {REPAIR}")
    try:
        _require_small(handle)
    except ValueError as error:
        raise StoreError(f"{where}: damaged: {file.where}: {error}; {REPAIR}") from error
    return handle


def read_record_file(storage: Storage, file: RecordFile) -> pa.Table:
    """All columns of a record file; raises like `open_record_file`."""
    return read_rows(open_record_file(storage, file), _columns_of(file), file.num_rows)


def read_checked(storage: Storage, file: RecordFile, columns: Sequence[str]) -> pa.Table:
    """Some columns of a record file of which every value was read and checked, a block of rows at a time.

    Raises like `open_record_file`, and StoreError if a column or value is missing or has another type, or if
    its rows are of other commits than its name says.
    """
    expected, (first, last) = _columns_of(file), commits_of(file.where)
    parts = [expected.empty_table().select(list(columns))]
    with _open_parquet(open_record_file(storage, file)) as parquet:
        _require_columns(parquet.schema_arrow, expected)
        for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE):
            batch.validate(full=True)
            require_sound(batch)
            require_selections(batch)
            bounds = pc.min_max(batch["sequence"]).as_py()
            if len(batch) and not first <= bounds["min"] <= bounds["max"] <= last:
                raise ValueError("its rows are of other commits than its name says")
            # Column by column: the schema of a file may carry notes that this one does not.
            part = [batch[name] for name in columns]
            parts.append(pa.Table.from_arrays(part, schema=parts[0].schema))
    table = pa.concat_tables(parts)
    if {"video_id", "sequence"} <= set(columns):
        keys = table.select(["video_id", "sequence"])
        if len(keys.group_by(keys.column_names).aggregate([])) < len(keys):
            raise StoreError(f"{file.where}: two rows of one commit are of one video; {REPAIR}")
    return table


def read_rows(source: Any, columns: pa.Schema, num_rows: int) -> pa.Table:
    """The `columns` of an opened record file. Raises StoreError if it cannot be read or has other rows."""
    # Not read_table, which imports pyarrow.dataset and would slow down `vidlat info`.
    with _open_parquet(source) as parquet:
        _require_columns(parquet.schema_arrow, columns)
        table = parquet.read(columns=columns.names)
        if len(table) != num_rows:
            raise ValueError(f"has {len(table)} rows; expected {num_rows}")
        # Column by column: the schema of a file may carry notes that this one does not.
        return pa.Table.from_arrays([table[name] for name in columns.names], schema=columns)


def _columns_of(file: RecordFile) -> pa.Schema:
    return COLUMNS[file.where.rpartition("/")[0]]


def _require_columns(found: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        index = found.get_field_index(field.name)
        if index < 0 or found.field(index).type != field.type:
            has = "no such column" if index < 0 else str(found.field(index).type)
            raise ValueError(f"column {field.name}: expected {field.type}, found {has}")


def _require_small(file: pa.NativeFile) -> None:
    """Raises ValueError for a record file that was made to exhaust memory."""
    num_bytes, pages = file.size(), list(read_pages(file))
    num_values, num_unpacked = sum(page.num_values for page in pages), sum(page.num_bytes for page in pages)
    if max(num_values, num_unpacked) > MOST_UNPACKED * num_bytes:
        raise ValueError(f"its {num_bytes} bytes unpack to {num_values} values of {num_unpacked} bytes")


@contextmanager
def _open_parquet(source: Any) -> Iterator[pq.ParquetFile]:
    """Open a record file; whatever is wrong with it becomes a StoreError, in the block too."""
    require_room()
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        if is_out_of_memory(error):  # the file is none the worse
            raise MemoryError(one_line(error)) from error
        raise StoreError(f"damaged record file: {one_line(error)[:300]}; {REPAIR}") from error
