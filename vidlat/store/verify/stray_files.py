"""Files in a cache that do not belong there: what kills have left, and what others have put in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vidlat.errors import StoreError
from vidlat.store import filesystem
from vidlat.store.layout import (
    FAILURES,
    LEASE,
    LEFTOVER,
    OWN_FILES,
    RECORD_FILE,
    RECORDS,
    SET_ASIDE,
    SHARD_FILE,
    build_folders,
)
from vidlat.store.lease import read_lease
from vidlat.store.verify.problem import Problem


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
        return self.identity is not None and filesystem.identity(self.file) == self.identity


def find_suspects(path: Path, num_shards: int | None) -> Iterator[Suspect]:
    """Everything in and beside the cache that is no part of one of `num_shards` (None: any)."""
    for build in build_folders(path):
        yield Suspect(where=f"../{build.name}", file=build, identity=filesystem.identity(build))
    for file in filesystem.list_files(path):
        where = file.relative_to(path).as_posix()
        if file_problem(path, where, num_shards):
            yield Suspect(where=where, file=file, identity=filesystem.identity(file))


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
    where = where.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Problem(where=where, kind=kind, what=what)


def _is_held(path: Path) -> bool:
    with suppress(StoreError):
        holder = read_lease(path)
        return holder is None or holder.is_alive()  # gone by now, or at work
    return True
