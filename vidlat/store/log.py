"""Commit records on disk: a folder of Parquet files that only grows, small ones merged now and then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vidlat.errors import StoreError
from vidlat.store.files import create_file
from vidlat.store.records import latest

MAX_SMALL_FILES = 64
SMALL_BYTES = 8 * 1024**2
"""Files from this size on are left alone, so that a row is rewritten a few times, not at every merge."""

READ_ATTEMPTS = 100


class RecordLog:
    """The records of one kind. A file is named `FIRST-LAST.parquet` after the commits in it."""

    def __init__(self, folder: Path, columns: pa.Schema) -> None:
        self.folder = folder
        self.columns = columns

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The latest row of every video, sorted by video_id; `columns` besides video_id and sequence, or all.

        Raises StoreError if a file is damaged.
        """
        names = self.columns.names if columns is None else ["video_id", "sequence", *columns]
        for _ in range(READ_ATTEMPTS):
            files = self._files()
            try:
                tables = [_read_file(file, names) for file in files]
            except FileNotFoundError:
                continue  # merged away while it was read: its rows stand in a file that came later
            # A merge between two steps of the listing can hide a file and its replacement alike.
            if not any(first < last for first, last in map(_commits, set(self._files()) - set(files))):
                empty = self.columns.empty_table().select(names)
                return latest(pa.concat_tables([empty, *tables]))
        raise StoreError(f"{self.folder}: its files vanish as fast as they are listed; try again")

    def last_sequence(self) -> int:
        """The number of the last commit, 0 before the first."""
        return max((_commits(file)[1] for file in self._files()), default=0)

    def append(self, table: pa.Table, sequence: int, partial: Path) -> None:
        """Add one commit: a file that appears whole or not at all. The caller holds the cache's lock."""
        self._create(table, sequence, sequence, partial)

    def merge_small_files(self, partial: Path) -> None:
        """Join the small files into one where they are many; a kill leaves rows twice, never none.

        The caller holds the cache's lock.
        """
        small = [file for file in self._files() if file.stat().st_size < SMALL_BYTES]
        if len(small) <= MAX_SMALL_FILES:
            return
        table = latest(pa.concat_tables(_read_file(file, self.columns.names) for file in small))
        commits = [_commits(file) for file in small]
        self._create(table, min(commits)[0], max(last for _, last in commits), partial)
        for file in small:
            file.unlink()

    def _create(self, table: pa.Table, first: int, last: int, partial: Path) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        name = f"{first:012d}-{last:012d}.parquet"
        create_file(self.folder / name, sink.getvalue().to_pybytes(), partial)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-[0-9]*.parquet"))


def _commits(file: Path) -> tuple[int, int]:
    first, _, last = file.stem.partition("-")
    return int(first), int(last)


def _read_file(file: Path, columns: Sequence[str]) -> pa.Table:
    try:
        # ParquetFile, not read_table: that one imports pyarrow.dataset, which `vidlat info` would wait for.
        with pq.ParquetFile(file) as parquet:
            return parquet.read(columns=list(columns)).select(list(columns))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StoreError(
            f"{file}: damaged record file ({error}); restore it, or delete it to encode its videos again"
        ) from error
