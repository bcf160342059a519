"""The arrays of a cache in an object store, read by ranges of their shards, many at a time.

A window takes one request for the chunks that it lies in, and the first one of a shard another for its
index. With a `ShardCache` a shard is fetched whole, once, and read from the disk ever after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from vidlat.errors import StoreError
from vidlat.store.latents.arrays import Frames, Latents
from vidlat.store.latents.local import LocalArrays
from vidlat.store.latents.shard import ABSENT, decode_chunk, index_size, parse_index, require_sound_shard
from vidlat.store.latents.shard_cache import ShardCache
from vidlat.store.layout import shard_file
from vidlat.store.process import process_id
from vidlat.store.schema import CacheSchema
from vidlat.store.storage.interface import Beyond, Missing, Storage, TooLarge, has_key

NUM_REQUESTS = 128
"""Requests in flight: at 20 ms each, 6,400 a second could be answered."""

GAP_BYTES = 64 * 1024
"""Bytes between two chunks that are fetched along with them, which takes less time than another request."""

MOST_INDEXES = 100_000
"""Shard indexes in memory, of 0.5 to 4 kB."""

Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint64]
Value = TypeVar("Value")

Shard = tuple[str, int]
"""The name of an array, and the number of one of its shards."""


class RemoteArrays:
    """The arrays of a cache in a storage, `num_frames` latent frames long. kept: where shards are kept."""

    def __init__(
        self, storage: Storage, schema: CacheSchema, num_frames: int, kept: ShardCache | None
    ) -> None:
        self._storage, self._schema, self._kept = storage, schema, kept
        self._disk = LocalArrays(kept.folder, schema, num_frames) if kept else None
        self._on_disk: set[Shard] = set()
        self._indexes = _Once[Places | None](MOST_INDEXES)
        self._fetches = _Once[bool](0)
        self._pool = ThreadPoolExecutor(NUM_REQUESTS, thread_name_prefix="ranges")
        self._process = process_id()

    def start_reading(self, name: str, frames: Frames) -> Callable[[], Latents]:
        """As LatentArrays.start_reading. Raises StoreError in a forked child, which lacks the threads."""
        if process_id() != self._process:
            raise StoreError(
                f"{self._storage.where}: this process was forked from one that reads latents, so it cannot: "
                "start it as a new one (multiprocessing: spawn or forkserver)"
            )
        if isinstance(frames, slice):
            frames = np.arange(frames.start, frames.stop)
        if self._kept is None or self._disk is None:
            return self._start_ranges(name, frames)
        keeping = {
            shard: self._pool.submit(self._keep, self._kept, (name, shard))
            for shard in np.unique(frames // self._schema.shard_frames).tolist()
            if not self._is_kept(self._kept, (name, shard))
        }
        if not keeping:
            return partial(self._read_disk, name, frames, self._start_disk(name, frames))

        def wait() -> Latents:
            elsewhere = [shard for shard, kept in keeping.items() if not kept.result()]
            return self._read_kept(name, frames, elsewhere)

        return wait

    def wrong_shard(self, name: str, shard: int) -> str:  # noqa: ARG002
        """As LatentArrays.wrong_shard: an object is bytes, whatever they are."""
        return ""

    def has_shard(self, name: str, shard: int) -> bool:
        """As LatentArrays.has_shard."""
        return has_key(self._storage, shard_file(name, shard))

    def _read_kept(self, name: str, frames: Integers, elsewhere: list[int]) -> Latents:
        """Frames of shards on disk from there, those of the shards `elsewhere` by ranges."""
        is_elsewhere = np.isin(frames // self._schema.shard_frames, elsewhere)
        if not is_elsewhere.any():
            return self._read_disk(name, frames)
        by_ranges = self._start_ranges(name, frames[is_elsewhere])
        latents = np.empty((*frames.shape, *self._frame_shape), np.float16)
        if not is_elsewhere.all():
            latents[~is_elsewhere] = self._read_disk(name, frames[~is_elsewhere])
        latents[is_elsewhere] = by_ranges()
        return latents

    def _read_disk(
        self, name: str, frames: Integers, ahead: Callable[[], Latents | None] | None = None
    ) -> Latents:
        """Frames of shards on disk; by ranges if they are damaged there, or if another process made room."""
        latents = (ahead or self._start_disk(name, frames))()
        return self._start_ranges(name, frames)() if latents is None else latents

    def _start_disk(self, name: str, frames: Integers) -> Callable[[], Latents | None]:
        """Start to read frames of shards on disk, which gives None if they are damaged there, or gone."""
        try:
            reading = self._disk.start_reading(name, frames) if self._disk else None
        except StoreError:
            reading = None

        def wait() -> Latents | None:
            latents = None
            try:
                latents = reading() if reading else None
            except ValueError:
                pass
            except StoreError:  # the folder was deleted: from now on by ranges
                self._disk = None
            if latents is not None and not np.isnan(latents[..., 0, 0, 0]).any():
                return latents
            self._drop(name, frames)
            return None

        return wait

    def _drop(self, name: str, frames: Integers) -> None:
        for shard in np.unique(frames // self._schema.shard_frames).tolist():
            if self._kept:
                self._kept.drop(name, shard)
            self._on_disk.discard((name, shard))

    def _is_kept(self, kept: ShardCache, shard: Shard) -> bool:
        """Whether a shard is on disk already, by this process or by another one."""
        if shard not in self._on_disk and kept.holds(*shard):
            self._on_disk.add(shard)
        return shard in self._on_disk

    def _keep(self, kept: ShardCache, shard: Shard) -> bool:
        """Fetch a shard to the disk; returns whether it is there."""
        if self._fetches.get(shard, lambda: self._fetch(kept, shard)):
            self._on_disk.add(shard)
        return shard in self._on_disk

    def _fetch(self, kept: ShardCache, shard: Shard) -> bool:
        storage = self._storage
        if kept.is_full:
            return False
        try:
            content = storage.open(shard_file(*shard), self._schema.most_shard_bytes).read()
            require_sound_shard(content, self._num_chunks)
        except (Missing, TooLarge, ValueError):
            return False  # as reading by ranges will tell
        return kept.keep(*shard, content)

    def _start_ranges(self, name: str, frames: Integers) -> Callable[[], Latents]:
        """Start to read latent frames by ranges, each shard in a thread."""
        flat = frames.ravel()
        latents = np.empty((flat.size, *self._frame_shape), np.float16)
        shards = flat // self._schema.shard_frames
        order = np.argsort(shards, kind="stable")
        starts = np.flatnonzero(np.diff(shards[order], prepend=-1))
        filling = [
            self._pool.submit(self._fill, latents, rows, (name, int(shards[rows[0]])), flat[rows])
            for rows in np.split(order, starts[1:])
            if len(rows)
        ]

        def wait() -> Latents:
            try:
                for filled in filling:
                    filled.result()
            finally:  # after an error or Ctrl-C the process must not wait for what has not begun
                for filled in filling:
                    filled.cancel()
            return latents.reshape(*frames.shape, *self._frame_shape)

        return wait

    def _fill(self, latents: Latents, rows: Integers, shard: Shard, frames: Integers) -> None:
        """Fill in the rows of some frames of one shard."""
        length = self._schema.chunk_frames
        chunks = frames % self._schema.shard_frames // length
        for chunk, values in self._chunks(shard, np.unique(chunks)):
            is_in_it = chunks == chunk
            latents[rows[is_in_it]] = values.swapaxes(0, 1)[frames[is_in_it] % length]

    def _chunks(self, shard: Shard, chunks: Integers) -> Iterator[tuple[int, Latents]]:
        """The values of some chunks of a shard, each (L, c, h, w)."""
        key, depth, *sides = shard_file(*shard), *self._frame_shape
        shape = depth, self._schema.chunk_frames, *sides
        try:
            places = self._indexes.get(shard, lambda: self._read_index(key))
            known = places[chunks] if places is not None else np.full((len(chunks), 2), ABSENT, np.uint64)
            for run in _runs(known):
                start, stop = int(known[run[0], 0]), int(known[run[-1]].sum())
                if stop - start > self._schema.most_shard_bytes:
                    raise ValueError("a shard index names chunks that cannot be")
                content, _ = self._storage.read(key, (start, stop))
                for index in run:
                    offset, size = known[index].tolist()
                    packed = content[offset - start : offset - start + size]
                    yield int(chunks[index]), decode_chunk(packed, shape)
        except (Beyond, ValueError) as error:
            raise ValueError(f"{self._storage.where}/{key}: {error}") from error
        for chunk in chunks[(known == ABSENT).any(axis=1)].tolist():
            yield chunk, np.full(shape, np.nan, np.float16)

    def _read_index(self, key: str) -> Places | None:
        """The index of a shard; None if there is no such shard."""
        try:
            content, _ = self._storage.read(key, (-index_size(self._num_chunks), None))
        except Missing:
            return None
        return parse_index(content, self._num_chunks)

    @property
    def _num_chunks(self) -> int:
        return self._schema.shard_frames // self._schema.chunk_frames

    @property
    def _frame_shape(self) -> tuple[int, int, int]:
        return self._schema.latent_dim, self._schema.latent_height, self._schema.latent_width


def _runs(places: Places) -> Iterator[list[int]]:
    """The indices of chunks that one request fetches, in the order of the file."""
    run: list[int] = []
    end = 0
    for index in np.argsort(places[:, 0], kind="stable").tolist():
        offset, size = places[index].tolist()
        if ABSENT in (offset, size):
            continue
        if run and not end <= offset <= end + GAP_BYTES:
            yield run
            run = []
        run.append(index)
        end = offset + size
    if run:
        yield run


class _Once(Generic[Value]):
    """Values that threads compute once each, the others waiting; the last `size` of them are remembered."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, Lock()
        self._futures: dict[Shard, Future[Value]] = {}

    def get(self, key: Shard, compute: Callable[[], Value]) -> Value:
        """The value of a key. Raises what `compute` raises, and computes it again the next time."""
        with self._lock:
            future = self._futures.get(key)
            is_ours = future is None
            if future is None:
                future = self._futures[key] = Future()
        if is_ours:
            try:
                future.set_result(compute())
            except BaseException as error:
                future.set_exception(error)
                self._forget(key)
                raise
            self._remember(key)
        return future.result()

    def _remember(self, key: Shard) -> None:
        if not self._size:
            self._forget(key)
        with self._lock:
            while len(self._futures) > self._size > 0:
                del self._futures[next(iter(self._futures))]

    def _forget(self, key: Shard) -> None:
        with self._lock:
            self._futures.pop(key, None)
