"""Pulling a cache from elsewhere into a folder, which appears whole and verified."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from vidlat.errors import StoreError
from vidlat.store import layout
from vidlat.store.copying.copy import CopyPlan, CopyProgress, copy_cache
from vidlat.store.copying.divergence import DivergedError
from vidlat.store.copying.snapshot import CacheSnapshot, read_snapshot
from vidlat.store.records.manifest import Manifest, read_manifest
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Missing, Storage, read_document
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.cache import OnVideo, verify_cache
from vidlat.store.writing.lease import hold_lease

PURPOSE = "vidlat pull"


def pull_cache(source: Storage, out: Path, on_video: OnVideo | None = None) -> Generator[CopyProgress]:
    """Copy the cache in a storage to the folder `out`, yielding what happens.

    It is built beside `out`, where another pull continues after a kill or an error, and renamed once every
    byte of it is verified. on_video: called for each video that is. If `out` holds the very state of the
    cache already, nothing is copied. Raises StoreError if it holds anything else, or if there is no cache,
    too little disk, or damage; InputError if it lies in a cache.
    """
    layout.require_outside_caches(out, may_be_one=True)
    snapshot = _read(source)
    if layout.holds_anything(out):
        _require_same(snapshot, out)
        yield CopyProgress()
        return
    build = build_folder(out, snapshot.manifest)
    target = _open(build)
    with hold_lease(build, PURPOSE):
        yield from _copy(snapshot, target, build)
        _delete_others(snapshot, build)
        _verify(source, build, on_video)
    _publish(build, out)


def build_folder(out: Path, manifest: Manifest) -> Path:
    """The folder beside `out` in which a cache is built: one for each cache, and the same for every pull."""
    # A hash, for the manifest of a stranger may say anything.
    name = hashlib.sha256(manifest.cache_uuid.encode()).hexdigest()[:32]
    return out.absolute().with_name(f".{out.name}.{name}.partial")


def _read(source: Storage) -> CacheSnapshot:
    try:
        return read_snapshot(source)
    except Missing as error:
        raise StoreError(
            f"{source.where}: is no cache: it has no {layout.MANIFEST}; look at the address, and continue a "
            "push to it that was interrupted"
        ) from error


def _require_same(snapshot: CacheSnapshot, out: Path) -> None:
    """Raises StoreError unless the folder holds this very state."""
    if not filesystem.exists(out / layout.MANIFEST):
        raise StoreError(f"{out}: exists, and is no cache; give another --out")
    here, there = read_manifest(local_cache(out)), snapshot.manifest
    if here.cache_uuid != there.cache_uuid:
        raise StoreError(f"{out}: is another cache than {snapshot.storage.where}; give another --out")
    if here != there:
        raise StoreError(
            f"{out}: is of commit {here.sequence}, {snapshot.storage.where} of commit {there.sequence}; pull "
            "into another --out"
        )


def _open(build: Path) -> LocalStorage:
    """The folder to build in, with what a cache on a disk has besides."""
    try:
        target = LocalStorage(build, create=True)
        for folder in (layout.RECORDS, layout.FAILURES, *layout.ARRAYS):
            filesystem.make_folder(build / folder)
        filesystem.replace_file(build / layout.READERS, b"")
    except OSError as error:
        raise StoreError(f"{build}: cannot be made ({error}); give another --out") from error
    return target


def _copy(snapshot: CacheSnapshot, target: LocalStorage, build: Path) -> Generator[CopyProgress]:
    try:
        card = read_document(snapshot.storage, layout.CARD)[0]
    except Missing:
        card = None
    try:
        events = copy_cache(snapshot, target, card=card, compare=False)
        first = next(events)
        _require_room(first.plan, build)
        yield first
        yield from events
    except DivergedError as error:
        raise StoreError(
            f"{build}: is left of a pull of another state ({error}); delete this folder, then pull again"
        ) from error


def _require_room(plan: CopyPlan | None, build: Path) -> None:
    needed, free = (plan and plan.num_bytes) or 0, filesystem.free_bytes(build)
    if needed > free:
        raise StoreError(
            f"{build}: {needed / 1e9:.1f} GB are to be copied and {free / 1e9:.1f} GB are free on its disk; "
            "free some, or give --out on another disk"
        )


def _delete_others(snapshot: CacheSnapshot, build: Path) -> None:
    """Delete what killed pulls have left, such as record files of an earlier state."""
    known = {*layout.OWN_FILES, layout.LEASE, *snapshot.record_files}
    for file in list(filesystem.list_files(build)):
        where = file.relative_to(build).as_posix()
        if where not in known and not layout.SHARD_FILE.fullmatch(where):
            filesystem.delete(file)


def _verify(source: Storage, build: Path, on_video: OnVideo | None) -> None:
    problems = list(verify_cache(build, on_video))
    if problems:
        first = problems[0]
        raise StoreError(
            f"{source.where}: what was pulled has a problem, {first.where}: {first.what}, and "
            f"{len(problems) - 1} more; delete {build} and pull again; if that does not help, the cache "
            "there is damaged"
        )


def _publish(build: Path, out: Path) -> None:
    """Give the folder its name; delete what pulls of other caches have left beside it."""
    try:
        filesystem.rename(build, out)
        filesystem.sync(out.absolute().parent)
    except OSError as error:
        raise StoreError(f"{out}: cannot be made of {build} ({error}); give another --out") from error
    for other in layout.build_folders(out):
        with suppress(OSError):
            filesystem.delete_tree(other)
