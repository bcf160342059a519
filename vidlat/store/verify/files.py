"""Files in a cache that do not belong there: what kills have left, and what others have put in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vidlat.errors import StoreError
from vidlat.store.lease import read_lease
from vidlat.store.metadata import FAILURES, LEASE, LOCK, READERS, RECORDS
from vidlat.store.verify.problem import Problem
from vidlat.store.verify.records import RECORD_FILE

OWN_FILES = {
    *("zarr.json", "mean/zarr.json", "std/zarr.json", "videos/zarr.json", "failures/zarr.json"),
    *(LOCK, READERS),
}
SHARD_FILE = re.compile(r"(?:mean|std)/c/0/(0|[1-9]\d*)/0/0")
LEFTOVER = re.compile(r".*(?:\.__lock|\bpartial|#\d+)")
SET_ASIDE = re.compile(rf"{RECORD_FILE.pattern}\.[0-9a-f]{{8}}\.damaged")
"""A record file that a repair has put out of the readers' sight, for whoever can make sense of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A file, or a folder beside the cache, that seems not to belong: a running encode may yet name it.

    where: its path inside the cache.
    """

    where: str
    file: Path
    identity: object

    @property
    def is_the_same(self) -> bool:
        """Whether it is still there, and no later namesake."""
        return self.identity is not None and _identity(self.file) == self.identity


def find_suspects(path: Path, num_shards: int | None) -> Iterator[Suspect]:
    """Everything in and beside the cache that is no part of one of `num_shards` (None: any)."""
    name = path.absolute().name
    for build in sorted(path.absolute().parent.glob(".*.partial")):
        if re.fullmatch(rf"\.{re.escape(name)}(?:\.[0-9a-f]{{32}})?\.partial", build.name):
            yield Suspect(where=f"../{build.name}", file=build, identity=_identity(build))
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            where = file.relative_to(path).as_posix()
            if file_problem(path, where, num_shards):
                yield Suspect(where=where, file=file, identity=_identity(file))


def file_problem(path: Path, where: str, num_shards: int | None) -> Problem | None:
    """What is wrong with a file being there: None if it is part of a cache of `num_shards` (None: any)."""
    folder, _, name = where.rpartition("/")
    is_log = folder in (RECORDS, FAILURES)
    if where in OWN_FILES or (is_log and (RECORD_FILE.fullmatch(name) or SET_ASIDE.fullmatch(name))):
        return None
    kind, what = "foreign", "is no part of a cache"
    if where == LEASE:
        if _is_held(path):
            return None
        kind, what = "leftover", "whoever wrote to the cache has died; the next one takes it over"
    elif shard := SHARD_FILE.fullmatch(where):
        if num_shards is None or int(shard[1]) < num_shards:
            return None
        what = f"lies past the end of the array, which has {num_shards} shards"
    elif LEFTOVER.fullmatch(where):
        kind, what = "leftover", "a kill has left it; nothing needs it"
    # A name need not be text; a problem is.
    return Problem(where=os.fsencode(where).decode("utf-8", "backslashreplace"), kind=kind, what=what)


def _is_held(path: Path) -> bool:
    with suppress(StoreError):
        holder = read_lease(path)
        return holder is None or holder.is_alive()  # gone by now, or at work
    return True


def _identity(file: Path) -> object:
    with suppress(OSError):
        stat = file.lstat()
        return stat.st_ino, stat.st_mtime_ns
    return None
