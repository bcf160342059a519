"""Comparison of the zarr.json files of a cache, to find what can be trusted in a damaged one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlat.errors import ConfigError, StoreError
from vidlat.store import filesystem
from vidlat.store.layout import ARRAYS, RECORDS, ROOT, array_document
from vidlat.store.metadata import read_attributes, read_document, zarr_documents
from vidlat.store.schema import FORMAT_VERSION, CacheSchema, CacheSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrMetadata:
    """The content of the zarr.json files of a cache.

    schema: None if neither the description nor the metadata of an array tell how to read latents. num_frames:
    latent frames that both arrays have; None if unknown. lengths: the length of the arrays by each file.
    is_contradicted: the metadata of the arrays are readable and all contradict the description. findings:
    file, kind and text of every problem.
    """

    schema: CacheSchema | None
    num_frames: int | None
    findings: list[tuple[str, str, str]]
    lengths: tuple[int, ...] = ()
    is_contradicted: bool = False

    @property
    def num_shards(self) -> int | None:
        """Shards of each array; None if unknown."""
        if self.schema is None or self.num_frames is None:
            return None
        return -(-self.num_frames // self.schema.shard_frames)


def read_zarr_metadata(path: Path) -> ZarrMetadata:
    """Read all zarr.json files of the cache at `path`. Raises StoreError if there is no cache."""
    try:
        attributes = read_attributes(path)
    except StoreError as error:
        if not filesystem.is_folder(path / RECORDS):
            raise  # there is no sign of a cache
        return ZarrMetadata(schema=None, num_frames=None, findings=[_unreadable(path, error)])
    try:
        schema, findings = _read_schema(attributes["vidlat"])
    except StoreError as error:
        return ZarrMetadata(schema=None, num_frames=None, findings=[_unreadable(path, error)])
    documents: dict[str, dict[str, Any]] = {}
    for name in zarr_documents({}, schema, 0):
        try:
            documents[name] = read_document(path / name)
        except StoreError as error:
            findings.append((name, "description", _without(path, error)))
    faults = {name: list(_faults(name, document, schema)) for name, document in documents.items()}
    findings += [(name, "description", what) for name, wrong in faults.items() for what in wrong]
    lengths = {name: length for name in documents if (length := _length(name, documents[name])) is not None}
    findings += _uneven(lengths, schema)
    if not any(faults.get(name) == [] for name in (ROOT, *map(array_document, ARRAYS))):
        findings.append((ROOT, "description", "all arrays contradict it, so no latents could be checked"))
        return ZarrMetadata(schema=None, num_frames=None, findings=findings, is_contradicted=bool(lengths))
    own = [length for name, length in lengths.items() if name != ROOT] or list(lengths.values())
    return ZarrMetadata(
        schema=schema,
        num_frames=min(own, default=None),
        findings=findings,
        lengths=tuple(lengths.values()),
    )


def _read_schema(attributes: dict[str, Any]) -> tuple[CacheSchema, list[tuple[str, str, str]]]:
    """The schema and its problems. Raises StoreError if latents cannot be read by it."""
    try:
        schema = CacheSchema.from_attributes(attributes)
        lost = schema.to_attributes().keys() - attributes.keys()
        return schema, [(ROOT, "description", f"has lost {name}; restore it") for name in sorted(lost)]
    except StoreError as error:
        if attributes.get("format_version") != FORMAT_VERSION or not isinstance(
            attributes.get("settings"), dict
        ):
            raise
        try:
            cache_id = CacheSettings.from_mapping(attributes["settings"]).cache_id
            schema = CacheSchema.from_attributes(attributes | {"cache_id": cache_id})
        except (ConfigError, TypeError, StoreError):
            raise error from None
        return schema, [(ROOT, "description", str(error))]


def _faults(name: str, document: dict[str, Any], schema: CacheSchema) -> Iterator[str]:
    """How a zarr.json differs from the description, except in the length of the arrays."""
    length = _length(name, document)
    expected = zarr_documents({}, schema, length or 0)[name]
    if name == ROOT and document.get("consolidated_metadata") is None:
        yield "has lost its consolidated metadata, which other readers need; restore it"
        return
    for field, value in expected.items():
        # Attributes may be set by other programs.
        if field != "attributes" and document.get(field) != value:
            yield f"{field} contradicts the description: {_brief(document.get(field))}; restore it"


def _uneven(lengths: dict[str, int], schema: CacheSchema) -> Iterator[tuple[str, str, str]]:
    """Arrays whose length differs from that in the root, or is not a multiple of a shard."""
    root = lengths.get(ROOT)
    for name, length in lengths.items():
        if length % schema.shard_frames:
            what = f"ends at latent frame {length}, inside a shard of {schema.shard_frames}; restore it"
            yield name, "description", what
        elif root is not None and length < root:
            yield name, "description", f"ends at latent frame {length}, before {root} as {ROOT} says"
        elif root is not None and length > root:
            what = f"ends at latent frame {length}, {ROOT} says {root}: the next encode completes the growth"
            yield name, "leftover", what


def _length(name: str, document: dict[str, Any]) -> int | None:
    """Latent frames of an array by its zarr.json, or of `mean` by that of the root; None for other files."""
    try:
        if name == ROOT:
            document = document["consolidated_metadata"]["metadata"]["mean"]
        length = document["shape"][1]
    except (KeyError, IndexError, TypeError):
        return None
    return length if isinstance(length, int) and length >= 0 else None


def _unreadable(path: Path, error: StoreError) -> tuple[str, str, str]:
    return ROOT, "description", f"{_without(path, error)}; no latents could be checked"


def _without(path: Path, error: StoreError) -> str:
    return str(error).removeprefix(f"{path}/").removeprefix(f"{path}: ")


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else text[:200] + "..."
