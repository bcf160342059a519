"""Commit records on disk: a folder of Parquet files to which commits only add, until prune compacts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidlat.errors import StoreError
from vidlat.store import filesystem
from vidlat.store.layout import FAILURES, RECORDS, commits_of, record_file, record_files
from vidlat.store.records import FAILURE_COLUMNS, VIDEO_COLUMNS, latest, standing, without_removed

READ_ATTEMPTS = 100


class RecordLog:
    """The records of one kind. A file is named `FIRST-LAST.parquet` after its first and last commit."""

    max_small_files = 64
    small_bytes = 8 * 1024**2
    """Larger files are not merged again, so that a row is rewritten only a few times."""

    def __init__(self, folder: Path, columns: pa.Schema) -> None:
        self.folder = folder
        self.columns = columns

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """`RecordSnapshot.read` on a new snapshot."""
        return self.snapshot().read(columns)

    def read_with_removed(self, names: Sequence[str]) -> pa.Table:
        """`RecordSnapshot.read_with_removed` on a new snapshot."""
        return self.snapshot().read_with_removed(names)

    def snapshot(self) -> RecordSnapshot:
        """The records as they are now. Raises StoreError if a file cannot be opened."""
        for _ in range(READ_ATTEMPTS):
            files = record_files(self.folder)
            try:
                opened = {file: filesystem.open_input(file) for file in files}
            except FileNotFoundError:
                continue  # merged since the listing: its rows are in a newer file
            except OSError as error:
                raise StoreError(f"{self.folder}: cannot be read: {error}") from error
            # A merge during the listing can hide both a file and its replacement.
            new = set(record_files(self.folder)) - set(files)
            if not any(first < last for first, last in map(commits_of, new)):
                return RecordSnapshot(opened, self.columns)
        raise StoreError(f"{self.folder}: its files vanish while they are listed; try again")

    def last_sequence(self) -> int:
        """The number of the last commit, 0 before the first."""
        return max((commits_of(file)[1] for file in record_files(self.folder)), default=0)

    def append(self, table: pa.Table, sequence: int, partial: Path) -> None:
        """Add one commit, as one new file, and merge the small files into one if there are many.

        A kill may leave rows in two files, but never loses one. The caller holds the cache's lock.
        """
        self._create(table, sequence, sequence, partial)
        small = [file for file in record_files(self.folder) if filesystem.size(file) < self.small_bytes]
        if len(small) <= self.max_small_files:
            return
        table = latest(pa.concat_tables(read_record_file(file, self.columns.names) for file in small))
        commits = [commits_of(file) for file in small]
        self._create(table, min(commits)[0], max(last for _, last in commits), partial)
        for file in small:
            filesystem.delete(file)

    def num_rows(self) -> int:
        """Rows in all files, old ones included. Raises StoreError if a file is damaged."""
        return sum(read_record_file(file, ["sequence"]).num_rows for file in record_files(self.folder))

    def rewrite(self, choose: Callable[[pa.Table], pa.Table], last: int, partial: Path) -> None:
        """Merge all files into one whose last commit is `last`, with the latest rows that `choose` keeps.

        choose: filters a table of video_id, sequence and, for videos, num_frames. Holds all kept rows in
        memory, 1 to 2 kB each. The caller holds the cache's lock.
        """
        files = record_files(self.folder)
        if not files:
            return
        names = [name for name in ("video_id", "sequence", "num_frames") if name in self.columns.names]
        keys = pa.concat_tables(read_record_file(file, names) for file in files)
        keys = keys.append_column("row", pa.array(np.arange(len(keys))))
        is_kept = np.zeros(len(keys), bool)
        is_kept[choose(latest(keys))["row"].to_numpy()] = True
        tables, num_before = [], 0
        for file in files:
            table = read_record_file(file, self.columns.names)
            tables.append(table.filter(is_kept[num_before : num_before + len(table)]))
            num_before += len(table)
        self._create(pa.concat_tables(tables), min(map(commits_of, files))[0], last, partial)
        for file in files:
            filesystem.delete(file)
        # The old files must be gone, even after a power failure, before the next step drops tombstones.
        filesystem.sync(self.folder)

    def _create(self, table: pa.Table, first: int, last: int, partial: Path) -> None:
        filesystem.create(self.folder / record_file(first, last), to_parquet(table), partial)


class RecordSnapshot:
    """The records of one moment, whose files stay open and so stay readable after their deletion.

    Takes one file descriptor per file: about 64, and one per 50,000 videos.
    """

    def __init__(self, files: Mapping[Path, pa.NativeFile], columns: pa.Schema) -> None:
        self._files = files
        self._columns = columns

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The latest row of every video that was not removed, sorted by video_id.

        columns: besides video_id and sequence; by default all. Raises StoreError if a file is damaged.
        """
        names = self._columns.names if columns is None else ["video_id", "sequence", *columns]
        return self._concatenated(names).take(self._rows[1])

    def read_with_removed(self, names: Sequence[str]) -> pa.Table:
        """The columns `names` of the latest row of every video, removed ones included, sorted by video_id.

        Raises StoreError if a file is damaged.
        """
        return self._concatenated(names).take(self._rows[0])

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
        tables = [read_record_file(file, names, handle) for file, handle in self._files.items()]
        return pa.concat_tables([self._columns.empty_table().select(list(names)), *tables])


class RecordLogs:
    """The two logs of the cache at `path`: its videos, and the videos that could not be encoded."""

    def __init__(self, path: Path) -> None:
        self.videos = RecordLog(path / RECORDS, VIDEO_COLUMNS)
        self.failures = RecordLog(path / FAILURES, FAILURE_COLUMNS)

    def last_sequence(self) -> int:
        """The number of the last commit, 0 before the first."""
        # One count over both logs: it tells whether a failure came before or after a success.
        return max(self.videos.last_sequence(), self.failures.last_sequence())

    def compact(self, partial: Path) -> None:
        """Rewrite both logs without old rows, tombstones and the rows that tombstones hide.

        A kill at any point leaves the same videos and failures. Uses up the next two sequence numbers. The
        caller holds the cache's lock.
        """
        sequence = 1 + self.last_sequence()
        # Failures first: a row of its video says whether a failure is over.
        committed = self.videos.read_with_removed(["video_id", "sequence"])
        self.failures.rewrite(lambda rows: standing(rows, committed), sequence, partial)
        # In two steps, so that no tombstone is deleted before every row that it hides.
        self.videos.rewrite(lambda rows: rows, sequence, partial)
        self.videos.rewrite(without_removed, sequence + 1, partial)


def to_parquet(table: pa.Table) -> bytes:
    """A table as the content of a record file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_record_file(
    file: Path, columns: Sequence[str] | None = None, opened: pa.NativeFile | None = None
) -> pa.Table:
    """The `columns` of a record file, by default all; opened: the file, if it is open. Raises StoreError."""
    try:
        # Not read_table, which imports pyarrow.dataset and would slow down `vidlat info`.
        source = opened or filesystem.open_input(file)
        with pq.ParquetFile(source, page_checksum_verification=True) as parquet:
            table = parquet.read(columns=columns and list(columns))
            return table.select(list(columns)) if columns else table
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StoreError(
            f"{file}: damaged record file ({error}); restore it, or delete it to encode its videos again"
        ) from error
