"""The arrays of a cache, by where it is."""

from __future__ import annotations

from vidlat.store.latents.arrays import LatentArrays
from vidlat.store.latents.local import LocalArrays
from vidlat.store.latents.shard_cache import shard_cache
from vidlat.store.latents.tensorstore_arrays import READ_CACHE_BYTES
from vidlat.store.schema import CacheSchema
from vidlat.store.storage.interface import Storage
from vidlat.store.storage.local import LocalStorage


def open_arrays(
    storage: Storage,
    schema: CacheSchema,
    num_frames: int,
    cache_uuid: str | None = None,
    cache_bytes: int = READ_CACHE_BYTES,
) -> LatentArrays:
    """The arrays of a cache, `num_frames` latent frames long; nothing is read yet.

    cache_uuid: under which shards of a remote cache are kept on disk, if the environment names a place; None
    to keep none. cache_bytes: memory per array for indexes and recent chunks of a folder.
    """
    if isinstance(storage, LocalStorage):
        return LocalArrays(storage.folder, schema, num_frames, cache_bytes)
    from vidlat.store.latents.remote import RemoteArrays  # loads numcodecs

    kept = shard_cache(storage.where, cache_uuid) if cache_uuid else None
    return RemoteArrays(storage, schema, num_frames, kept)
