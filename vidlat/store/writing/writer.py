"""Creating a cache, growing it, and adding videos to it.

The order that survives a kill at any point: `CacheWriter.reserve` (driver), `write_shards` (worker),
`CacheWriter.commit` (driver). What no commit names is a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError
from vidlat.store import layout
from vidlat.store.metadata import (
    array_frames,
    read_attributes,
    read_schema,
    write_document,
    zarr_documents,
)
from vidlat.store.records.log import append, compact, last_sequence, merge, read_records, roll_forward
from vidlat.store.records.manifest import Committed, Manifest, read_committed, write_manifest
from vidlat.store.records.tables import (
    FAILURE_COLUMNS,
    VIDEO_COLUMNS,
    to_dropped,
    to_table,
    to_tombstones,
    with_sequence,
    with_sources,
)
from vidlat.store.schema import CacheSchema
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Storage
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.opening import local_cache
from vidlat.store.writing.lease import LeaseHolder, hold_lease
from vidlat.types import FailureRecord, InputVideo, VideoRecord


def create_folder_cache(path: Path, schema: CacheSchema) -> None:
    """Create an empty cache at `path`, unless there is a cache of equal settings.

    The cache is built beside `path` and renamed, so that a kill leaves all of it or nothing, and only one of
    several drivers creates it. Raises StoreError if anything else but an empty folder is there.
    """
    path = path.absolute()
    try:
        filesystem.make_folder(path.parent)
        _build(path, schema)
        filesystem.sync(path.parent)
        # Builds that killed processes left. A process that still builds finds the cache in place.
        for other in layout.build_folders(path):
            with suppress(OSError):
                filesystem.delete_tree(other)
    except OSError as error:
        raise StoreError(f"{path}: cannot make a cache here ({error}); give another --out") from error


def _build(path: Path, schema: CacheSchema) -> None:
    building = layout.new_build_folder(path)
    try:
        for folder in (layout.RECORDS, layout.FAILURES, *layout.ARRAYS):
            filesystem.make_folder(building / folder)
        filesystem.replace_file(building / layout.READERS, b"")
        description = schema.to_attributes()
        manifest = Manifest(cache_uuid=uuid4().hex, description=description)
        write_manifest(building, manifest)
        documents = zarr_documents({"vidlat": description}, schema, 0)
        for name, document in documents.items():
            write_document(building, name, document)
        filesystem.rename(building, path)
    except OSError:
        with suppress(OSError):
            filesystem.delete_tree(building)
        if not _is_cache_of(path, schema):
            raise


def _is_cache_of(path: Path, schema: CacheSchema) -> bool:
    try:
        return read_schema(local_cache(path)).cache_id == schema.cache_id
    except StoreError:
        return False


@contextmanager
def open_folder_writer(path: Path, purpose: str) -> Iterator[CacheWriter]:
    """As `open_writer`, for a cache in a folder."""
    storage = local_cache(path)
    read_schema(storage)  # before a file is created in a folder that is not a cache
    with hold_lease(path, purpose) as lease:
        yield CacheWriter(storage, lease)


OnWait = Callable[[str], None]
"""Called with a line of text before it is waited whether the process that holds a cache is alive."""


def not_told(line: str) -> None:
    """An OnWait that tells nobody."""


class WriteLease(Protocol):
    """The right to write to a cache, as long as no other process takes it over.

    taken_from: the dead holder whose lease was taken over, if any. has_locks: whether the place of the cache
    tells processes apart that write at the same moment.
    """

    @property
    def taken_from(self) -> LeaseHolder | None: ...

    @property
    def has_locks(self) -> bool: ...

    def held(self) -> AbstractContextManager[None]:
        """Keep others away during one change; StoreError if another process has taken over the cache."""


class CacheWriter:
    """Reserves ranges of a cache and commits to it; see `open_writer`.

    Every method checks that the lease is still held, so that a driver that lost it changes nothing. Each
    raises StoreError if the cache cannot be written or another process has taken it over; the change may have
    been made then, and may be made again.
    """

    max_small_files = 64
    small_bytes = 8 * 1024**2
    """Larger record files are not merged again, so that a row is rewritten only a few times."""

    def __init__(self, storage: Storage, lease: WriteLease) -> None:
        self.storage, self.where = storage, storage.where
        self.lease = lease
        self.schema = read_schema(storage)

    @property
    def path(self) -> Path:
        """Its folder. Raises StoreError for a cache that is not in one."""
        if isinstance(self.storage, LocalStorage):
            return self.storage.folder
        raise StoreError(f"{self.where}: is not in a folder of this machine; expected one")

    def reserve(self, num_shards: int) -> int:
        """Grow both arrays by whole shards and return the first latent frame of the new range.

        The range follows from the length of the longer array, not from the records, so that no range is
        reserved twice, not even for a second attempt.
        """
        if num_shards < 1:
            raise ValueError(f"num_shards: got {num_shards}; expected 1 or more")
        with self._held():
            return self._grow(num_shards * self.schema.shard_frames)

    def _grow(self, num_frames: int) -> int:
        start = max(array_frames(self.storage, self.schema).values())
        documents = zarr_documents(read_attributes(self.storage), self.schema, start + num_frames)
        # The root last: until then, readers see the old shape of both arrays.
        for name in (*map(layout.array_document, layout.ARRAYS), layout.ROOT):
            write_document(self.path, name, documents[name])
        return start

    def commit(self, records: Sequence[VideoRecord]) -> None:
        """Add videos whose shards are written, all at once. Sets the sequence number of their records."""
        if records:
            self.append_rows({layout.RECORDS: lambda sequence: to_table(records, VIDEO_COLUMNS, sequence)})

    def recommit(self, records: Sequence[VideoRecord]) -> None:
        """Record the new ranges of moved videos, all at once; their later failures keep standing."""
        ids = pa.array([record.video_id for record in records])
        with self._held():
            failures = read_records(self.storage).standing_failures()
            again = failures.filter(pc.is_in(failures["video_id"], value_set=ids))
            tables: dict[str, Callable[[int], pa.Table]] = {}
            if len(again):  # first: if a kill leaves it alone, nothing changes
                tables[layout.FAILURES] = lambda sequence: with_sequence(again, sequence)
            tables[layout.RECORDS] = lambda sequence: to_table(records, VIDEO_COLUMNS, sequence)
            self._keep(append(self.storage, self._state(), tables))

    def remove(self, video_ids: Sequence[str], excluded: Sequence[str] = ()) -> None:
        """Remove videos, all at once; their latents remain on disk as holes.

        excluded: ids that no encode adds again, of these videos or of others that are gone.
        """
        tables: dict[str, Callable[[int], pa.Table]] = {}
        if excluded:  # first: if a kill leaves it alone, the next prune removes the videos
            tables[layout.FAILURES] = lambda sequence: to_dropped(excluded, sequence)
        if video_ids:
            tables[layout.RECORDS] = lambda sequence: to_tombstones(video_ids, sequence)
        if tables:
            self.append_rows(tables)

    def commit_sources(self, videos: Sequence[InputVideo]) -> None:
        """Update the path, time and annotation of cached videos, and nothing else."""
        if videos:
            self.append_rows(
                {
                    layout.RECORDS: lambda sequence: with_sources(
                        read_records(self.storage).videos.read(), videos, sequence
                    )
                }
            )

    def record_failures(self, failures: Sequence[FailureRecord]) -> None:
        """Record why videos could not be encoded, until a later commit supersedes it."""
        if failures:
            self.append_rows(
                {layout.FAILURES: lambda sequence: to_table(failures, FAILURE_COLUMNS, sequence)}
            )

    def last_sequence(self) -> int:
        """The number of the last commit, 0 before the first; of nothing that only took the cache over."""
        return last_sequence(self.storage)

    def roll_forward(self) -> None:
        """Complete a commit that a killed process had written but not yet committed."""
        with self._held():
            self._keep(roll_forward(self.storage, self._state()))

    def compact_records(self) -> None:
        """Rewrite the records without old rows, so that no trace of replaced or removed videos is left."""
        with self._held():
            compact(self.storage)

    def append_rows(self, tables: Mapping[str, Callable[[int], pa.Table]]) -> None:
        """Commit the rows of each folder, made for the next sequence number; merge small files if many."""
        with self._held():
            state = self._keep(append(self.storage, self._state(), tables))
            for folder in tables:
                small = [
                    file for file in state.manifest.files_in(folder) if file.num_bytes < self.small_bytes
                ]
                if len(small) > self.max_small_files:
                    state = self._keep(merge(self.storage, state, folder, small))

    def _state(self) -> Committed:
        """The state of the cache to which the next change is made."""
        return read_committed(self.storage)

    def _keep(self, state: Committed) -> Committed:
        return state

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the cache for one change."""
        try:
            with self.lease.held():
                yield
        except OSError as error:
            raise StoreError(f"{self.where}: cannot be written: {error}") from error
