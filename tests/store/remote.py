"""Caches in an object store, as `vidlat push` leaves them."""

from vidlat.store.layout import LEASE, LOCK, MANIFEST, READERS
from vidlat.store.storage.local import LocalStorage


def put(path, storage):
    """Store all files of the cache at `path`, the manifest last."""
    local = LocalStorage(path)
    keys = [key for key, _ in local.list() if key not in (LOCK, LEASE, READERS, MANIFEST)]
    for key in (*keys, MANIFEST):
        storage.create(key, local.read(key)[0])
