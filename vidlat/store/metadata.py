"""The zarr.json files of a cache, written to the Zarr v3 specification and read as plain JSON.

Library handles are not used: a handle opened before the arrays grow silently writes nothing past their old
shape, and saving attributes through one drops the consolidated metadata. The metadata of a cache are a
function of its attributes and its length, and every write replaces a whole file atomically.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidlat.documents import parse_json
from vidlat.errors import StoreError
from vidlat.store.layout import ARRAYS, MANIFEST, RECORDS, ROOT, array_document
from vidlat.store.schema import CacheSchema
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Missing, Storage, Unreachable, Version, has_key, read_document
from vidlat.store.storage.local import LocalStorage

MOST_FRAMES = 2**40
"""A greater length is damage: no disk holds as many latent frames."""


def zarr_documents(attributes: dict[str, Any], schema: CacheSchema, num_frames: int) -> dict[str, Any]:
    """Every zarr.json of a cache of `num_frames` latent frames, by path relative to the cache.

    The root comes last: its consolidated metadata publish the shapes of both arrays at once, and keep readers
    from mistaking the folders of Parquet files for damaged Zarr nodes.
    """
    members = {name: _array(schema, num_frames) for name in ARRAYS}
    members |= {name: _group({}, {}) for name in ("videos", "failures")}
    documents = {array_document(name): document for name, document in members.items()}
    return documents | {ROOT: _group(attributes, members)}


def read_zarr_document(storage: Storage, name: str) -> dict[str, Any]:
    """A zarr.json as JSON. Raises StoreError if it is missing or damaged."""
    return read_with_version(storage, name)[0]


def read_with_version(storage: Storage, name: str) -> tuple[dict[str, Any], Version]:
    """A zarr.json as JSON, and its version. Raises StoreError if it is missing or damaged."""
    what = f"{storage.where}/{name}: cannot be read as Zarr metadata"
    try:
        content, version = read_document(storage, name)
        document = parse_json(content)
    except Unreachable:
        raise
    except (StoreError, ValueError) as error:
        raise StoreError(f"{what}: {error}") from error
    if not isinstance(document, dict):
        raise StoreError(f"{what}: expected a JSON object")
    return document, version


def document_json(document: dict[str, Any]) -> bytes:
    """The content of a zarr.json."""
    return json.dumps(document, indent=2).encode()


def write_document(path: Path, name: str, document: dict[str, Any]) -> None:
    """Replace the zarr.json `name` of the cache at `path` atomically. The caller holds the cache's lock."""
    content = document_json(document)
    # Written first where Zarr readers, which warn of unknown files, do not look.
    filesystem.replace_file(path / name, content, temporary_in=path / RECORDS)


def read_attributes(storage: Storage) -> dict[str, Any]:
    """The root's attributes. Raises StoreError if there is no vidlat cache."""
    where = storage.where
    try:
        attributes = read_zarr_document(storage, ROOT).get("attributes")
    except StoreError as error:
        if not isinstance(error.__cause__, Missing):
            raise
        raise StoreError(
            f"{where}: damaged: its {ROOT} is missing; `vidlat verify --repair` restores it"
            if has_key(storage, MANIFEST)
            else f"{where}: is not a vidlat cache: it has no zarr.json"
            + ("" if isinstance(storage, LocalStorage) else "; if its push was interrupted, push again")
        ) from None
    if not isinstance(attributes, dict) or not isinstance(attributes.get("vidlat"), dict):
        raise StoreError(f"{where}: is not a vidlat cache: a Zarr store made by another program")
    return attributes


def read_schema(storage: Storage) -> CacheSchema:
    """The schema of a cache. Raises StoreError if there is none or its format is unknown."""
    attributes = read_attributes(storage)
    try:
        return CacheSchema.from_attributes(attributes["vidlat"])
    except StoreError as error:
        raise StoreError(f"{storage.where}: {error}") from error


def array_frames(storage: Storage, schema: CacheSchema) -> dict[str, int]:
    """Latent frames of each array by its own zarr.json; they may differ after a kill while arrays grow.

    Raises StoreError if a zarr.json is missing, damaged, or contradicts the schema.
    """
    return {name: _array_frames(storage, array_document(name), schema) for name in ARRAYS}


def _array_frames(storage: Storage, where: str, schema: CacheSchema) -> int:
    rewrites = "`vidlat verify --repair` rewrites it"
    try:
        document = read_zarr_document(storage, where)
    except Unreachable:
        raise
    except StoreError as error:
        raise StoreError(f"{error}; {rewrites}") from error
    fault = next(document_faults(where, document, schema), None)
    num_frames = document_length(where, document)
    if fault or num_frames is None:
        raise StoreError(f"{storage.where}: damaged: {where}: {fault or 'has no shape'}; {rewrites}")
    return num_frames


def document_faults(name: str, document: dict[str, Any], schema: CacheSchema) -> Iterator[str]:
    """How the zarr.json `name` of a cache differs from its schema, except in the length of the arrays."""
    expected = zarr_documents({}, schema, document_length(name, document) or 0)[name]
    if name == ROOT and document.get("consolidated_metadata") is None:
        yield "has lost its consolidated metadata, which other readers need"
        return
    for field, value in expected.items():
        # Attributes may be set by other programs.
        if field != "attributes" and document.get(field) != value:
            yield f"{field} contradicts the description: {json.dumps(document.get(field))[:200]}"


def document_length(name: str, document: dict[str, Any]) -> int | None:
    """Latent frames of an array by its zarr.json, or of `mean` by that of the root; None for other files."""
    try:
        if name == ROOT:
            document = document["consolidated_metadata"]["metadata"]["mean"]
        length = document["shape"][1]
    except (KeyError, IndexError, TypeError):
        return None
    return length if type(length) is int and 0 <= length <= MOST_FRAMES else None


def _group(attributes: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    consolidated = {"kind": "inline", "must_understand": False, "metadata": members}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": consolidated,
    }


def _array(schema: CacheSchema, num_frames: int) -> dict[str, Any]:
    depth, height, width = schema.latent_dim, schema.latent_height, schema.latent_width
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    blosc = {"typesize": 2, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
    sharding = {
        "chunk_shape": [depth, schema.chunk_frames, height, width],
        # Without crc32c inside the shard a flipped bit would read back as another number.
        "codecs": [little, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [depth, num_frames, height, width],
        "data_type": "float16",
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [depth, schema.shard_frames, height, width]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN",
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": ["latent", "frame", "y", "x"],
        "storage_transformers": [],
    }
