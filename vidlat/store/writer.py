"""Creating a cache, growing it, and adding videos to it.

The order that survives a kill at any point: `CacheWriter.reserve` (driver), `write_shards` (worker),
`CacheWriter.commit` (driver). What no commit names is a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import ShardExistsError, StoreError
from vidlat.store import filesystem, layout
from vidlat.store.arrays import open_for_writing
from vidlat.store.lease import Lease, hold_lease
from vidlat.store.log import append, compact, last_sequence, merge, read_records, roll_forward
from vidlat.store.manifest import Manifest, write_manifest
from vidlat.store.metadata import (
    array_frames,
    read_attributes,
    read_schema,
    write_document,
    zarr_documents,
)
from vidlat.store.open_storage import local_cache
from vidlat.store.records import (
    FAILURE_COLUMNS,
    VIDEO_COLUMNS,
    to_table,
    to_tombstones,
    with_sequence,
    with_sources,
)
from vidlat.store.schema import CacheSchema
from vidlat.store.statistics import to_stored
from vidlat.types import FailureRecord, FloatArray, InputVideo, LatentPosterior, VideoRecord


def create_cache(path: Path, schema: CacheSchema) -> None:
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
def open_writer(path: Path, purpose: str) -> Iterator[CacheWriter]:
    """Hold the cache at `path` for writing during a block; purpose: the command that writes.

    Takes over the lease of a dead process. Raises StoreError if `path` is not a cache, if a running process
    holds it, or if it cannot be written.
    """
    read_schema(local_cache(path))  # before a file is created in a folder that is not a cache
    with hold_lease(path, purpose) as lease:
        yield CacheWriter(path, lease)


class CacheWriter:
    """Reserves ranges of a cache and commits to it; see `open_writer`.

    Every method locks the cache while it runs and checks that the lease is still held, so that a driver that
    lost it changes nothing. Each raises StoreError if the cache cannot be written or another process has
    taken it over; the change may have been made then, and may be made again.
    """

    max_small_files = 64
    small_bytes = 8 * 1024**2
    """Larger record files are not merged again, so that a row is rewritten only a few times."""

    def __init__(self, path: Path, lease: Lease) -> None:
        self.path = path
        self.lease = lease
        self._storage = local_cache(path)
        self.schema = read_schema(self._storage)

    def reserve(self, num_shards: int) -> int:
        """Grow both arrays by whole shards and return the first latent frame of the new range.

        The range follows from the length of the longer array, not from the records, so that no range is
        reserved twice, not even for a second attempt.
        """
        if num_shards < 1:
            raise ValueError(f"num_shards: got {num_shards}; expected 1 or more")
        with self._locked():
            start = max(array_frames(self._storage, self.schema).values())
            stop = start + num_shards * self.schema.shard_frames
            documents = zarr_documents(read_attributes(self._storage), self.schema, stop)
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
        with self._locked():
            failures = read_records(self._storage).standing_failures()
            again = failures.filter(pc.is_in(failures["video_id"], value_set=ids))
            tables: dict[str, Callable[[int], pa.Table]] = {}
            if len(again):  # first: if a kill leaves it alone, nothing changes
                tables[layout.FAILURES] = lambda sequence: with_sequence(again, sequence)
            tables[layout.RECORDS] = lambda sequence: to_table(records, VIDEO_COLUMNS, sequence)
            append(self._storage, tables)

    def remove(self, video_ids: Sequence[str]) -> None:
        """Remove videos, all at once; their latents remain on disk as holes."""
        if video_ids:
            self.append_rows({layout.RECORDS: lambda sequence: to_tombstones(video_ids, sequence)})

    def commit_sources(self, videos: Sequence[InputVideo]) -> None:
        """Update the path, time and annotation of cached videos, and nothing else."""
        if videos:
            self.append_rows(
                {
                    layout.RECORDS: lambda sequence: with_sources(
                        read_records(self._storage).videos.read(), videos, sequence
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
        """The number of the last commit, 0 before the first."""
        return last_sequence(self._storage)

    def roll_forward(self) -> None:
        """Complete a commit that a killed process had written but not yet committed."""
        with self._locked():
            roll_forward(self._storage)

    def compact_records(self) -> None:
        """Rewrite the records without old rows, so that no trace of replaced or removed videos is left."""
        with self._locked():
            compact(self._storage)

    def append_rows(self, tables: Mapping[str, Callable[[int], pa.Table]]) -> None:
        """Commit the rows of each folder, made for the next sequence number; merge small files if many."""
        with self._locked():
            manifest = append(self._storage, tables)
            for folder in tables:
                small = [file for file in manifest.files_in(folder) if file.num_bytes < self.small_bytes]
                if len(small) > self.max_small_files:
                    manifest = merge(self._storage, manifest, folder, small)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the cache for one change."""
        try:
            for folder in (layout.RECORDS, layout.FAILURES):  # tools that copy a cache may drop empty folders
                filesystem.make_folder(self.path / folder)
            with filesystem.locked(self.path / layout.LOCK):
                self.lease.require_held()
                yield
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error}") from error


def write_shards(path: Path, start: int, posteriors: Sequence[LatentPosterior]) -> list[tuple[int, int]]:
    """Write a batch of videos into the range reserved at `start`; returns the (start, stop) of each.

    Each video starts on a chunk boundary. Gaps and the rest of the last shard stay NaN. One shard is in
    memory at a time, so that the arrays may be memmaps of any length. Shards are on disk when this returns.
    Raises StoreError if the range is not made of whole, reserved and unwritten shards, or cannot be written;
    EncodeError for a value that cannot be stored.
    """
    schema = read_schema(local_cache(path))
    lengths = [posterior.mean.shape[1] for posterior in posteriors]
    starts = schema.pack(lengths)
    num_shards = schema.num_shards(lengths)
    _require_fitting(schema, posteriors)
    _require_own_shards(path, schema, start, num_shards)
    values = {"mean": [p.mean for p in posteriors], "std": [p.std for p in posteriors]}
    num_frames = num_shards * schema.shard_frames
    arrays = {name: _open_up_to(path, name, start + num_frames) for name in layout.ARRAYS}
    for first in range(0, num_frames, schema.shard_frames):
        shard = slice(start + first, start + first + schema.shard_frames)
        for name in layout.ARRAYS:
            block = _shard_block(name, schema, values[name], starts, first)
            _result_of(arrays[name][:, shard].write(block), path, name)
    return [(start + first, start + first + length) for first, length in zip(starts, lengths, strict=True)]


def _shard_block(
    name: str, schema: CacheSchema, videos: Sequence[FloatArray], starts: Sequence[int], first: int
) -> npt.NDArray[np.float16]:
    """The shard `first` latent frames into the batch: (L, shard_frames, h, w), NaN outside videos."""
    shape = (schema.latent_dim, schema.shard_frames, schema.latent_height, schema.latent_width)
    block = np.full(shape, np.nan, dtype="<f2")
    for video, start in zip(videos, starts, strict=True):
        begin, end = max(start, first), min(start + video.shape[1], first + schema.shard_frames)
        if begin < end:
            values = video[:, begin - start : end - start]
            # Rounded before. NaN or infinity would read back as a hole.
            block[:, begin - first : end - first] = to_stored(name, values)
    return block


def _require_fitting(schema: CacheSchema, posteriors: Sequence[LatentPosterior]) -> None:
    expected = (schema.latent_dim, schema.latent_height, schema.latent_width)
    for posterior in posteriors:
        depth, num_frames, height, width = posterior.mean.shape
        if (depth, height, width) != expected or num_frames < 1:
            raise StoreError(
                f"latents of shape {posterior.mean.shape} do not fit a cache of (latent_dim, height, width) "
                f"{expected}; encode with the VAE and --size of the cache"
            )


def _require_own_shards(path: Path, schema: CacheSchema, start: int, num_shards: int) -> None:
    if start < 0 or start % schema.shard_frames:
        raise StoreError(
            f"{path}: a write at latent frame {start} begins inside a shard of {schema.shard_frames} "
            "and would destroy the latents before it; write at the start that CacheWriter.reserve returned"
        )
    first = start // schema.shard_frames
    for index in range(first, first + num_shards):
        for name in layout.ARRAYS:
            file = path / layout.shard_file(name, index)
            try:
                places = file, file.parent, file.parent.parent
                is_written = filesystem.exists(file) or any(map(filesystem.is_link, places))
            except OSError as error:
                raise StoreError(f"{path}: {name} cannot be read: {error}") from error
            if is_written:
                raise ShardExistsError(
                    f"{path}: shard {index} of {name} is already written, perhaps by an earlier attempt, and "
                    "writing again could destroy a video; reserve a fresh range"
                )


def _open_up_to(path: Path, name: str, stop: int) -> Any:
    array = open_for_writing(path / name)
    if array.shape[1] < stop:
        raise StoreError(
            f"{path}: {name} ends at latent frame {array.shape[1]}, before {stop}: data written past "
            "its end would be lost; reserve the range first"
        )
    return array


def _result_of(future: Any, path: Path, name: str) -> Any:
    try:
        return future.result()
    except ValueError as error:  # raised by tensorstore for any error of the system
        raise StoreError(f"{path}: {name} cannot be written: {error}") from error
