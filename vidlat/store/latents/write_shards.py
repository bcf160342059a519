"""Writing latents into shards, each of which is created once, whole, and never changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.errors import ShardExistsError, StoreError
from vidlat.store.latents.statistics import to_stored
from vidlat.store.latents.tensorstore_arrays import encode_shard
from vidlat.store.layout import ARRAYS, array_document, shard_file
from vidlat.store.metadata import array_frames, read_schema, zarr_documents
from vidlat.store.schema import CacheSchema
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Exists, Storage, Unreachable
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.opening import cache_storage
from vidlat.types import FloatArray, LatentPosterior


def write_shards(
    where: str | Path, start: int, posteriors: Sequence[LatentPosterior]
) -> list[tuple[int, int]]:
    """Write a batch of videos into the range reserved at `start`; returns the (start, stop) of each.

    Each video starts on a chunk boundary. Gaps and the rest of the last shard stay NaN. One shard is in
    memory at a time, so that the arrays may be memmaps of any length. Shards are stored when this returns.
    Raises StoreError if the range is not made of whole and reserved shards, or cannot be written,
    ShardExistsError if other latents are there; EncodeError for a value that cannot be stored.
    """
    return write_into(cache_storage(where), start, posteriors)


def write_into(storage: Storage, start: int, posteriors: Sequence[LatentPosterior]) -> list[tuple[int, int]]:
    """As `write_shards`, for the cache in a storage."""
    schema = read_schema(storage)
    lengths = [posterior.mean.shape[1] for posterior in posteriors]
    _require_fitting(schema, posteriors)
    _require_reserved(storage, schema, start, schema.num_shards(lengths))
    documents = zarr_documents({}, schema, schema.shard_frames)
    for name, shard, block in _blocks(schema, start, posteriors):
        key = shard_file(name, shard)
        _require_no_link(storage, key)
        try:
            storage.create(key, encode_shard(documents[array_document(name)], block))
        except Exists as error:
            raise ShardExistsError(
                f"{storage.where}: shard {shard} of {name} is already written, perhaps by an earlier "
                "attempt, and writing again could destroy a video; reserve a fresh range"
            ) from error
        except Unreachable as error:
            raise Unreachable(f"{storage.where}: {name} cannot be written: {error}") from error
    starts = schema.pack(lengths)
    return [(start + first, start + first + length) for first, length in zip(starts, lengths, strict=True)]


def _blocks(
    schema: CacheSchema, start: int, posteriors: Sequence[LatentPosterior]
) -> Iterator[tuple[str, int, npt.NDArray[np.float16]]]:
    """The name of the array, the number and the values of each shard of a batch."""
    lengths = [posterior.mean.shape[1] for posterior in posteriors]
    starts = schema.pack(lengths)
    values = {"mean": [p.mean for p in posteriors], "std": [p.std for p in posteriors]}
    for number in range(schema.num_shards(lengths)):
        first = number * schema.shard_frames
        for name in ARRAYS:
            block = _shard_block(name, schema, values[name], starts, first)
            yield name, start // schema.shard_frames + number, block


def _shard_block(
    name: str, schema: CacheSchema, videos: Sequence[FloatArray], starts: Sequence[int], first: int
) -> npt.NDArray[np.float16]:
    """The shard `first` latent frames into the batch: (L, shard_frames, h, w), NaN outside videos."""
    shape = (schema.latent_dim, schema.shard_frames, schema.latent_height, schema.latent_width)
    block = np.full(shape, np.nan, dtype="<f2")
    for video, start in zip(videos, starts, strict=True):
        begin, end = max(start, first), min(start + video.shape[1], first + schema.shard_frames)
        if begin < end:
            values = video[:, begin - start : end - start]
            # Rounded before. NaN or infinity would read back as a hole.
            block[:, begin - first : end - first] = to_stored(name, values)
    return block


def _require_fitting(schema: CacheSchema, posteriors: Sequence[LatentPosterior]) -> None:
    expected = (schema.latent_dim, schema.latent_height, schema.latent_width)
    for posterior in posteriors:
        depth, num_frames, height, width = posterior.mean.shape
        if (depth, height, width) != expected or num_frames < 1:
            raise StoreError(
                f"latents of shape {posterior.mean.shape} do not fit a cache of (latent_dim, height, width) "
                f"{expected}; encode with the VAE and --size of the cache"
            )


def _require_reserved(storage: Storage, schema: CacheSchema, start: int, num_shards: int) -> None:
    if start < 0 or start % schema.shard_frames:
        raise StoreError(
            f"{storage.where}: a write at latent frame {start} begins inside a shard of "
            f"{schema.shard_frames} and would destroy the latents before it; write at the start that "
            "CacheWriter.reserve returned"
        )
    stop = start + num_shards * schema.shard_frames
    for name, num_frames in array_frames(storage, schema).items():
        if num_frames < stop:
            raise StoreError(
                f"{storage.where}: {name} ends at latent frame {num_frames}, before {stop}: data written "
                "past its end would be lost; reserve the range first"
            )


def _require_no_link(storage: Storage, key: str) -> None:
    """Raise ShardExistsError for a link in place of a shard or its folders: latents would lie elsewhere."""
    if not isinstance(storage, LocalStorage):
        return
    file = storage.folder / key
    try:
        is_link = any(map(filesystem.is_link, (file, file.parent, file.parent.parent)))
    except OSError as error:
        raise StoreError(f"{file}: cannot be written: {error.strerror or error}") from error
    if is_link:
        raise ShardExistsError(
            f"{storage.where}: {key} is a link, or lies in one; expected no such file: reserve a fresh range"
        )
