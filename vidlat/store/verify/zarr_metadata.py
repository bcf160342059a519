"""Comparison of the zarr.json files of a cache, to find what can be trusted in a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vidlat.errors import StoreError
from vidlat.store.layout import ARRAYS, MANIFEST, RECORDS, ROOT, array_document
from vidlat.store.metadata import (
    document_faults,
    document_length,
    read_attributes,
    read_schema,
    read_zarr_document,
    zarr_documents,
)
from vidlat.store.records.manifest import read_manifest
from vidlat.store.schema import CacheSchema
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Storage, Unreachable, has_key
from vidlat.store.storage.local import LocalStorage

Finding = tuple[str, str, str]
"""A file, the kind of problem, and what was found."""


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
    findings: list[Finding]
    lengths: tuple[int, ...] = ()
    is_contradicted: bool = False

    @property
    def num_shards(self) -> int | None:
        """Shards of each array; None if unknown."""
        if self.schema is None or self.num_frames is None:
            return None
        return -(-self.num_frames // self.schema.shard_frames)


def read_zarr_metadata(storage: Storage) -> ZarrMetadata:
    """Read all zarr.json files of a cache. Raises StoreError if there is no cache."""
    schema, is_certain, findings = _read_description(storage)
    if schema is None:
        return ZarrMetadata(schema=None, num_frames=None, findings=findings)
    found: list[Finding] = []
    documents: dict[str, dict[str, Any]] = {}
    for name in zarr_documents({}, schema, 0):
        try:
            documents[name] = read_zarr_document(storage, name)
        except Unreachable:
            raise
        except StoreError as error:
            found.append((name, "description", _without(storage, error)))
    faults = {name: list(document_faults(name, document, schema)) for name, document in documents.items()}
    found += [(name, "description", what) for name, wrong in faults.items() for what in wrong]
    # Of a root that is damaged anyway, the consequences need not be listed.
    is_root_damaged = any(where == ROOT for where, _, _ in findings)
    findings += [finding for finding in found if finding[0] != ROOT or not is_root_damaged]
    lengths = {
        name: length
        for name, document in documents.items()
        if (length := document_length(name, document)) is not None
    }
    findings += _uneven(lengths, schema)
    if not is_certain and not any(faults.get(name) == [] for name in (ROOT, *map(array_document, ARRAYS))):
        findings.append((ROOT, "description", "all arrays contradict it, so no latents could be checked"))
        return ZarrMetadata(schema=None, num_frames=None, findings=findings, is_contradicted=bool(lengths))
    own = [length for name, length in lengths.items() if name != ROOT] or list(lengths.values())
    return ZarrMetadata(
        schema=schema,
        num_frames=min(own, default=None),
        findings=findings,
        lengths=tuple(lengths.values()),
    )


def _read_description(storage: Storage) -> tuple[CacheSchema | None, bool, list[Finding]]:
    """The description by the manifest or else by the root, whether it is certain, and its problems."""
    copy, schema = None, None
    found: list[Finding] = []
    with suppress(StoreError):  # a manifest that cannot be read is reported with the records
        copy = read_manifest(storage).description
        try:
            schema = CacheSchema.from_attributes(copy)
        except StoreError as error:
            found.append((MANIFEST, "description", f"its copy of the description: {error}"))
    try:
        in_root = read_schema(storage)
    except Unreachable:
        raise
    except StoreError as error:
        if not _has_records(storage):
            raise  # there is no sign of a cache
        return schema, schema is not None, [*found, (ROOT, "description", _without(storage, error))]
    if schema and read_attributes(storage)["vidlat"] != copy:
        return schema, True, [(ROOT, "description", f"its description differs from the copy in {MANIFEST}")]
    return in_root, schema is not None, found


def _has_records(storage: Storage) -> bool:
    if isinstance(storage, LocalStorage):
        return filesystem.is_folder(storage.folder / RECORDS)
    return has_key(storage, MANIFEST)


def _uneven(lengths: dict[str, int], schema: CacheSchema) -> Iterator[Finding]:
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


def _without(storage: Storage, error: StoreError) -> str:
    return str(error).removeprefix(f"{storage.where}/").removeprefix(f"{storage.where}: ")
