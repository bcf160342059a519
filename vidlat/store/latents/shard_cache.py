"""Shards of remote caches on a local disk, whole, up to a number of bytes, shared by processes.

Nothing here is needed: what is missing or damaged is fetched again, so nothing waits for the disk.
"""

from __future__ import annotations

import hashlib
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidlat.errors import InputError
from vidlat.paths import cache_folder
from vidlat.store.layout import shard_file
from vidlat.store.storage import filesystem

LOCK, TOTAL, IN_USE = "lock", "bytes", "in-use"

FOLDER = re.compile(r"vidlat-[0-9a-f]{32}")
"""The name of a folder of shards. Whatever else lies beside it is somebody else's."""


def shard_cache(where: str, cache_uuid: str) -> ShardCache | None:
    """The place of a cache's shards in the folder that the environment names; None if it names none.

    where: its address, for two caches that went on from a copy of one have the same uuid. Raises InputError
    for a folder that cannot be used.
    """
    place = cache_folder()
    if place is None:
        return None
    folder, num_bytes = place
    try:
        return ShardCache(folder, f"{cache_uuid} {where}", num_bytes)
    except OSError as error:
        raise InputError(f"{folder}: cannot hold shards: {error}; give another --cache-dir") from error


class ShardCache:
    """The shards of the cache `name` in the folder `top`, in which at most `num_bytes` of shards are kept.

    Where they are full, shards of caches that no process reads make room, those unused for longest first;
    after that no more are kept: to replace some by others helps nobody who reads all of them by turns.
    is_full: whether a shard was not kept for want of room.
    """

    def __init__(self, top: Path, name: str, num_bytes: int) -> None:
        self._top, self._num_bytes = top, num_bytes
        self.is_full = False
        # A hash, since the name comes from elsewhere and may lead anywhere.
        self.folder = top / f"vidlat-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        filesystem.make_folder(top)
        with self._locked():
            filesystem.make_folder(self.folder)  # now that nobody deletes it to make room
            filesystem.write_whole(self.folder / IN_USE, b"")
            # A file that is locked together with others, and by whoever deletes this folder.
            weakref.finalize(self, filesystem.lock_shared(self.folder / IN_USE).close)
            self._set_total(self._counted())

    def holds(self, name: str, shard: int) -> bool:
        """Whether a shard of the array `name` is kept."""
        return filesystem.is_regular_file(self._file(name, shard))

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
        others = [each for each in self._folders() if each != self.folder]
        freed = 0
        for other in sorted(others, key=lambda each: filesystem.time_of_change(each / IN_USE)):
            if freed >= num_bytes:
                break
            with suppress(BlockingIOError), filesystem.locked(other / IN_USE, wait=False):
                freed += sum(size for _, size in filesystem.walk_files(other))
                filesystem.delete_tree(other)
        return freed

    def _folders(self) -> list[Path]:
        """Those of all caches."""
        names = filter(FOLDER.fullmatch, filesystem.list_names(self._top))
        return [each for name in names if not filesystem.is_link(each := self._top / name)]

    def _total(self) -> int:
        with suppress(OSError, ValueError):
            return int(filesystem.read_document(self._top / TOTAL))
        return self._counted()

    def _counted(self) -> int:
        return sum(size for folder in self._folders() for _, size in filesystem.walk_files(folder))

    def _set_total(self, total: int) -> None:
        filesystem.write_whole(self._top / TOTAL, str(total).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with filesystem.locked(self._top / LOCK):
            yield
