"""Files that do not belong in a cache: leftovers of killed processes, and foreign files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vidlat.errors import StoreError
from vidlat.store import layout
from vidlat.store.records.log import uncommitted_files
from vidlat.store.records.manifest import read_manifest
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.problem import Problem
from vidlat.store.writing.lease import read_lease


@dataclass(frozen=True, slots=True)
class KnownFiles:
    """What belongs to a cache: shards below a number, and record files; None for any."""

    num_shards: int | None = None
    records: frozenset[str] | None = None

    @classmethod
    def of(cls, path: Path, num_shards: int | None) -> KnownFiles:
        """The files of the cache at `path` now, and of a commit that may be under way or was cut off."""
        try:
            manifest = read_manifest(local_cache(path))
        except StoreError:
            return cls(num_shards)
        files = (*manifest.files, *uncommitted_files(local_cache(path), manifest))
        return cls(num_shards, frozenset(file.where for file in files))


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A file in the cache, or a folder beside it, that seems not to belong, unless a running encode uses it.

    where: its path relative to the cache.
    """

    where: str
    file: Path
    identity: object

    @property
    def is_the_same(self) -> bool:
        """Whether the same file is still there."""
        return self.identity is not None and filesystem.identity(self.file) == self.identity


def find_suspects(path: Path, known: KnownFiles) -> Iterator[Suspect]:
    """All files in and beside a cache that do not belong to it."""
    for build in layout.build_folders(path):
        yield Suspect(where=f"../{build.name}", file=build, identity=filesystem.identity(build))
    for file in filesystem.list_files(path):
        where = file.relative_to(path).as_posix()
        if file_problem(path, where, known):
            yield Suspect(where=where, file=file, identity=filesystem.identity(file))


def file_problem(path: Path, where: str, known: KnownFiles) -> Problem | None:
    """The problem of a stray file; None if it belongs to the cache."""
    folder, _, name = where.rpartition("/")
    is_record = layout.is_record_file(where)
    is_set_aside = folder in (layout.RECORDS, layout.FAILURES) and layout.SET_ASIDE.fullmatch(name)
    is_known = known.records is None or where in known.records
    if where in layout.OWN_FILES or is_set_aside or (is_record and is_known):
        return None
    kind, what = "foreign", "does not belong in a cache"
    if is_record:
        kind, what = "leftover", "a record file that no commit names: left by a killed process, or a copy"
    elif where == layout.LEASE:
        if _is_held(path):
            return None
        kind, what = "leftover", "the process that held the cache has died; the next writer takes it over"
    elif shard := layout.SHARD_FILE.fullmatch(where):
        if known.num_shards is None or int(shard[1]) < known.num_shards:
            return None
        what = f"lies past the end of the array, which has {known.num_shards} shards"
    elif layout.LEFTOVER.fullmatch(where):
        kind, what = "leftover", "left by a killed process and not needed"
    elif filesystem.is_link(path / where) and filesystem.is_folder(path / where):
        what = "is a link to a folder, in which nothing is written or deleted; put the folder itself there"
    # A file name may hold bytes that are not text.
    where = where.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Problem(where=where, kind=kind, what=what)


def _is_held(path: Path) -> bool:
    with suppress(StoreError):
        holder = read_lease(path)
        return holder is None or holder.is_alive()  # None: deleted by now
    return True
