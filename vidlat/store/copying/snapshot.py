"""A cache in a storage at one moment, but for its latents: what a copy of it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from vidlat.documents import parse_json
from vidlat.errors import StoreError
from vidlat.store.layout import ARRAYS, MANIFEST, RECORDS, ROOT, array_document, shard_file
from vidlat.store.metadata import document_faults, document_length
from vidlat.store.records.log import open_record_file, read_rows
from vidlat.store.records.manifest import Manifest, RecordFile
from vidlat.store.records.ranges import (
    CHECKSUM_SIZES,
    CHECKSUMS,
    RANGE_COLUMNS,
    require_possible_ranges,
    shards_of,
)
from vidlat.store.records.tables import VIDEO_COLUMNS, latest, without_removed
from vidlat.store.records.values import require_sound
from vidlat.store.schema import CacheSchema
from vidlat.store.storage.interface import Missing, Storage, Version, read_document

DOCUMENTS = (*(array_document(name) for name in ARRAYS), "videos/zarr.json", "failures/zarr.json", ROOT)
"""The zarr.json files in the order in which they are written."""

NAMES = ("video_id", "sequence", *RANGE_COLUMNS, "fps", CHECKSUMS)
COLUMNS = pa.schema([VIDEO_COLUMNS.field(name) for name in NAMES])
"""What a copy needs to know of each video."""

ATTEMPTS = 100
"""How often merges of record files may interfere with reading them."""


@dataclass(frozen=True, kw_only=True)
class CacheSnapshot:
    """A cache in a storage as its manifest describes it.

    manifest_json, version: content and version of the manifest. documents, record_files: contents by key.
    videos: the latest row of every video, removed ones included, sorted by video_id; COLUMNS. standing: those
    of videos that were not removed, in the order of the time axis.
    """

    storage: Storage
    manifest: Manifest
    manifest_json: bytes
    version: Version
    schema: CacheSchema
    documents: Mapping[str, bytes]
    record_files: Mapping[str, bytes]
    videos: pa.Table
    standing: pa.Table

    @cached_property
    def shards(self) -> list[str]:
        """The keys of all shards that hold a video."""
        return shard_keys(self.standing, self.schema.shard_frames)

    @cached_property
    def keys(self) -> frozenset[str]:
        """The keys of all files of a copy, but for its card."""
        return frozenset((*self.shards, *self.record_files, *DOCUMENTS, MANIFEST))


def shard_keys(videos: pa.Table, shard_frames: int) -> list[str]:
    """The keys of all shards that hold one of these videos."""
    starts, stops = videos["start"].to_numpy(), videos["stop"].to_numpy()
    shards = shards_of(starts, stops, shard_frames).tolist()
    return [shard_file(name, shard) for shard in shards for name in ARRAYS]


def read_snapshot(storage: Storage, known: Mapping[str, bytes] | None = None) -> CacheSnapshot:
    """The cache in a storage as it is now; the storage is not listed.

    known: contents of record files by key, which need not be read again if the manifest names them. Raises
    Missing if there is no manifest, StoreError for a damaged cache or another format version.
    """
    for _ in range(ATTEMPTS):
        content, version = read_document(storage, MANIFEST)
        manifest = _parse_manifest(storage, content)
        try:
            files = {file.where: _read_file(storage, file, known or {}) for file in manifest.files}
        except Missing as error:
            if read_document(storage, MANIFEST)[0] == content:
                raise _damaged(storage, str(error)) from error
            continue  # merged meanwhile: its rows are in a newer file
        schema = _read_schema(storage, manifest)
        # After the records, whose ranges the arrays must cover: arrays grow before a commit.
        documents = {name: _read_document(storage, name) for name in DOCUMENTS}
        num_frames = min(array_lengths(storage, documents, schema).values())
        videos = _latest_videos(storage, manifest, files)
        return CacheSnapshot(
            storage=storage,
            manifest=manifest,
            manifest_json=content,
            version=version,
            schema=schema,
            documents=documents,
            record_files=files,
            videos=videos,
            standing=_standing(storage, videos, schema, num_frames),
        )
    raise StoreError(f"{storage.where}: its record files vanish while they are read; try again")


def _parse_manifest(storage: Storage, content: bytes) -> Manifest:
    try:
        return Manifest.from_json(content)
    except ValueError as error:
        raise _damaged(storage, f"{MANIFEST} cannot be read: {error}") from error


def _read_file(storage: Storage, file: RecordFile, known: Mapping[str, bytes]) -> bytes:
    """The content of a record file, which is that of `known` if the manifest says so."""
    content = known.get(file.where)
    if content is None or RecordFile.of(file.where, content, file.num_rows) != file:
        handle = open_record_file(storage, file)
        handle.seek(0)
        content = handle.read()
    return content


def _read_schema(storage: Storage, manifest: Manifest) -> CacheSchema:
    try:
        return CacheSchema.from_attributes(manifest.description)
    except StoreError as error:
        raise StoreError(f"{storage.where}: {error}") from error


def _read_document(storage: Storage, name: str) -> bytes:
    try:
        return read_document(storage, name)[0]
    except Missing as error:
        raise _damaged(storage, f"{name} is missing") from error


def array_lengths(storage: Storage, documents: Mapping[str, bytes], schema: CacheSchema) -> dict[str, int]:
    """Latent frames by each of these zarr.json files that states them.

    Raises StoreError for one that cannot be read or contradicts the schema.
    """
    lengths = {}
    for name, content in documents.items():
        try:
            document = parse_json(content)
            if not isinstance(document, dict):
                raise ValueError("expected a JSON object")
        except ValueError as error:
            raise _damaged(storage, f"{name}: {error}") from error
        if fault := next(document_faults(name, document, schema), None):
            raise _damaged(storage, f"{name}: {fault}")
        if (length := document_length(name, document)) is not None:
            lengths[name] = length
    return lengths


def _latest_videos(storage: Storage, manifest: Manifest, files: Mapping[str, bytes]) -> pa.Table:
    tables = [COLUMNS.empty_table()]
    for file in manifest.files_in(RECORDS):
        try:
            tables.append(read_rows(pa.BufferReader(files[file.where]), COLUMNS, file.num_rows))
        except StoreError as error:
            raise StoreError(f"{storage.where}: {file.where}: {error}") from error
    return latest(pa.concat_tables(tables))


def _standing(storage: Storage, videos: pa.Table, schema: CacheSchema, num_frames: int) -> pa.Table:
    rows = without_removed(videos)
    try:
        require_sound(rows)
    except StoreError as error:
        raise _damaged(storage, str(error)) from error
    sizes = pc.binary_length(rows[CHECKSUMS])
    return require_possible_ranges(
        storage.where, rows.append_column(CHECKSUM_SIZES, sizes), schema, num_frames
    )


def _damaged(storage: Storage, what: str) -> StoreError:
    return StoreError(
        f"{storage.where}: damaged: {what}; `vidlat verify` tells more where the cache was made"
    )
