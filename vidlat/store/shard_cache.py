"""Shards of remote caches on a local disk, whole, up to a number of bytes, shared by processes.

Nothing here is needed: what is missing or damaged is fetched again, so nothing waits for the disk.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidlat.errors import InputError
from vidlat.paths import cache_folder
from vidlat.store import filesystem
from vidlat.store.layout import shard_file

LOCK, TOTAL, IN_USE = "lock", "bytes", "in-use"


def shard_cache(cache_uuid: str) -> ShardCache | None:
    """The place of a cache's shards in the folder that the environment names; None if it names none.

    Raises InputError for a folder that cannot be used.
    """
    place = cache_folder()
    if place is None:
        return None
    folder, num_bytes = place
    try:
        return ShardCache(folder, cache_uuid, num_bytes)
    except OSError as error:
        raise InputError(f"{folder}: cannot hold shards: {error}; give another --cache-dir") from error


class ShardCache:
    """The shards of one cache in the folder `top`, in which at most `num_bytes` are kept.

    Where they are full, shards of caches that no process reads make room, those unused for longest first;
    after that no more are kept: to replace some by others helps nobody who reads all of them by turns.
    is_full: whether a shard was not kept for want of room.
    """

    def __init__(self, top: Path, cache_uuid: str, num_bytes: int) -> None:
        self._top, self._num_bytes = top, num_bytes
        self.is_full = False
        # A hash, since the name comes from elsewhere and may lead anywhere.
        self.folder = top / hashlib.sha256(cache_uuid.encode()).hexdigest()[:32]
        filesystem.make_folder(self.folder)
        with self._locked():
            filesystem.write_whole(self.folder / IN_USE, b"")
            # A file that is locked together with others, and by whoever deletes this folder.
            weakref.finalize(self, filesystem.lock_shared(self.folder / IN_USE).close)
            self._set_total(sum(size for _, size in filesystem.walk_files(top)))

    def holds(self, name: str, shard: int) -> bool:
        """Whether a shard of the array `name` is kept."""
        return filesystem.exists(self._file(name, shard))

    def keep(self, name: str, shard: int, content: bytes) -> bool:
        """Keep a shard, whole or not at all; returns whether it is kept."""
        file = self._file(name, shard)
        try:
            if not self._take_room(len(content)):
                return False
            filesystem.make_folder(file.parent)
            filesystem.write_whole(file, content)
        except OSError:
            return False  # a full disk is no reason to stop
        return True

    def drop(self, name: str, shard: int) -> None:
        """Delete a shard that is damaged."""
        with suppress(OSError):
            filesystem.delete(self._file(name, shard))

    def _file(self, name: str, shard: int) -> Path:
        return self.folder / shard_file(name, shard)

    def _take_room(self, num_bytes: int) -> bool:
        with self._locked():
            total = self._total() + num_bytes
            if total > self._num_bytes:
                total -= self._free(total - self._num_bytes)
            if total > self._num_bytes:
                self.is_full = True
                return False
            self._set_total(total)
            return True

    def _free(self, num_bytes: int) -> int:
        """Delete caches that no process reads until so many bytes are free, if possible; returns how many."""
        others = [self._top / name for name in filesystem.list_names(self._top)]
        others = [each for each in others if filesystem.is_folder(each) and each != self.folder]
        freed = 0
        for other in sorted(others, key=lambda each: filesystem.time_of_change(each / IN_USE)):
            if freed >= num_bytes:
                break
            with suppress(BlockingIOError), filesystem.locked(other / IN_USE, wait=False):
                freed += sum(size for _, size in filesystem.walk_files(other))
                filesystem.delete_tree(other)
        return freed

    def _total(self) -> int:
        with suppress(OSError, ValueError):
            return int(filesystem.read_document(self._top / TOTAL))
        return sum(size for _, size in filesystem.walk_files(self._top))

    def _set_total(self, total: int) -> None:
        filesystem.write_whole(self._top / TOTAL, str(total).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with filesystem.locked(self._top / LOCK):
            yield
