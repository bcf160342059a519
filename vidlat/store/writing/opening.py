"""Creating caches and holding them for writing, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidlat.paths import is_address, local_path
from vidlat.store.layout import MANIFEST, holds_anything
from vidlat.store.schema import CacheSchema
from vidlat.store.storage.interface import has_key
from vidlat.store.storage.opening import open_storage
from vidlat.store.writing.writer import (
    CacheWriter,
    OnWait,
    create_folder_cache,
    not_told,
    open_folder_writer,
)


def create_cache(where: str | Path, schema: CacheSchema) -> None:
    """Create an empty cache at a path or an address, unless there is a cache of equal settings.

    A kill leaves all of it or none. Raises StoreError if anything else is there; only an empty folder is in
    no way.
    """
    if not is_address(where):
        create_folder_cache(local_path(where), schema)
        return
    from vidlat.store.writing.object_writer import create_object_cache

    create_object_cache(open_storage(str(where), write=True), schema)


def is_taken(where: str | Path) -> bool:
    """Whether a cache cannot be made at a path or an address, or is there."""
    if not is_address(where):
        return holds_anything(local_path(where))
    return has_key(open_storage(str(where)), MANIFEST)


@contextmanager
def open_writer(where: str | Path, purpose: str, on_wait: OnWait = not_told) -> Iterator[CacheWriter]:
    """Hold a cache for writing during a block; purpose: the command that writes.

    Takes over the lease of a dead process. One on another machine that holds a cache in an object store
    counts as dead when it has shown no sign of life for a minute; on_wait is called before. Raises StoreError
    if there is no cache, if a running process holds it, or if it cannot be written.
    """
    if not is_address(where):
        with open_folder_writer(local_path(where), purpose) as writer:
            yield writer
        return
    from vidlat.store.writing.object_writer import open_object_writer

    with open_object_writer(open_storage(str(where), write=True), purpose, on_wait) as writer:
        yield writer
