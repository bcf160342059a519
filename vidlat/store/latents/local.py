"""The arrays of a cache in a folder, read by tensorstore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vidlat.errors import StoreError
from vidlat.store.latents.arrays import Frames, Latents
from vidlat.store.latents.tensorstore_arrays import READ_CACHE_BYTES, open_for_reading, require_usable
from vidlat.store.layout import array_document, shard_file
from vidlat.store.metadata import zarr_documents
from vidlat.store.records.ranges import REPAIR
from vidlat.store.schema import CacheSchema
from vidlat.store.storage import filesystem


class LocalArrays:
    """The arrays in a folder, `num_frames` latent frames long, opened when they are first read.

    cache_bytes: memory per array for shard indexes and recent chunks.
    """

    def __init__(
        self, path: Path, schema: CacheSchema, num_frames: int, cache_bytes: int = READ_CACHE_BYTES
    ) -> None:
        self.path = path
        self._schema, self._num_frames, self._cache_bytes = schema, num_frames, cache_bytes
        self._folder = filesystem.OpenFolder(path)
        self._arrays: dict[str, Any] = {}
        self._seen: set[tuple[str, int]] = set()

    def start_reading(self, name: str, frames: Frames) -> Callable[[], Latents]:
        """As LatentArrays.start_reading. Raises StoreError if the folder was removed or replaced."""
        self._require_shards(name, frames)
        array = self._array(name)
        axes = (*range(1, 2 if isinstance(frames, slice) else 1 + frames.ndim), 0, -2, -1)
        # One gather is several times faster than one read per window.
        reading = array[:, frames].transpose(axes).read()

        def wait() -> Latents:
            latents: Latents = reading.result()
            if not self._folder.is_in_place():
                raise StoreError(f"{self.path}: was removed or replaced while it was read; start again")
            return latents

        return wait

    def wrong_shard(self, name: str, shard: int) -> str:
        """As LatentArrays.wrong_shard: on anything but a regular file tensorstore may wait for ever."""
        try:
            filesystem.require_regular_file(self.path / shard_file(name, shard))
        except FileNotFoundError:
            return ""  # its latents read as missing
        except OSError as error:
            return str(error.strerror)
        return ""

    def has_shard(self, name: str, shard: int) -> bool:
        """As LatentArrays.has_shard."""
        return filesystem.exists(self.path / shard_file(name, shard))

    def _require_shards(self, name: str, frames: Frames) -> None:
        """Look at the files that hold latent frames, each once."""
        if isinstance(frames, slice):
            frames = np.arange(frames.start, frames.stop)
        shards = set(np.unique(frames // self._schema.shard_frames).tolist())
        for shard in shards:
            if (name, shard) in self._seen:
                continue
            if what := self.wrong_shard(name, shard):
                raise StoreError(f"{self.path / shard_file(name, shard)}: {what}; {REPAIR}")
            self._seen.add((name, shard))

    def _array(self, name: str) -> Any:
        require_usable()
        if name not in self._arrays:
            documents = zarr_documents({}, self._schema, self._num_frames)
            metadata = documents[array_document(name)]
            self._arrays[name] = open_for_reading(self.path / name, metadata, self._cache_bytes)
        return self._arrays[name]
