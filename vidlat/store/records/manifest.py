"""The manifest of a cache: the record files that make up its present state. Replacing it is what commits.

It names every record file with its size and checksum, so that one that is lost, damaged or exchanged is
noticed. It also holds a second copy of the cache's description, from which a damaged root can be restored.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import google_crc32c

from vidlat.documents import Fields, parse_json
from vidlat.errors import StoreError, shown
from vidlat.store.layout import LAST_COMMIT, MANIFEST, is_record_file
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Missing, Storage, Unreachable, Version, read_document
from vidlat.store.storage.local import LocalStorage

MOST = 2**63 - 1
"""The largest size or number of rows in a manifest."""

REPAIR = "`vidlat verify --repair` restores what can be restored"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFile:
    """A record file. where: its path relative to the cache. crc32c: of its bytes."""

    where: str
    num_bytes: int
    num_rows: int
    crc32c: int

    @classmethod
    def of(cls, where: str, content: bytes, num_rows: int) -> Self:
        """The record file `where` of that content."""
        crc32c = google_crc32c.value(content)
        return cls(where=where, num_bytes=len(content), num_rows=num_rows, crc32c=crc32c)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A state of a cache.

    cache_uuid: given when the cache was created, so that another one in its place is noticed. description:
    the root's attributes["vidlat"]. sequence: the number of the last commit, 0 before the first. files: the
    record files, of videos and failures.
    """

    cache_uuid: str
    description: dict[str, Any]
    sequence: int = 0
    files: tuple[RecordFile, ...] = ()

    def files_in(self, folder: str) -> list[RecordFile]:
        """The record files in a folder of the cache."""
        return [file for file in self.files if file.where.rpartition("/")[0] == folder]

    def to_json(self) -> bytes:
        """The content of the manifest's file, with a checksum."""
        values = self._to_values()
        return json.dumps(values | {"crc32c": _checksum(values)}, indent=2).encode()

    def _to_values(self) -> dict[str, Any]:
        # Not asdict(self), which copies the description: every look at a cache reads its manifest.
        return {
            "cache_uuid": self.cache_uuid,
            "description": self.description,
            "sequence": self.sequence,
            "files": [asdict(file) for file in self.files],
        }

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The inverse of `to_json`. Raises ValueError for anything that it did not write."""
        values = parse_json(content)
        fields = Fields(values, "the manifest")
        crc32c = fields.whole("crc32c", 0, 2**32 - 1)
        del values["crc32c"]
        if crc32c != _checksum(values):
            raise ValueError("its checksum is wrong")
        if not fields.text("cache_uuid").isprintable():  # it is hashed, for which lone surrogates are no text
            raise ValueError(
                f"cache_uuid: got {shown(fields.text('cache_uuid'))}; expected hexadecimal digits"
            )
        manifest = cls(
            cache_uuid=fields.text("cache_uuid"),
            description=fields.take("description", dict, "an object"),
            sequence=fields.whole("sequence", 0, LAST_COMMIT),
            files=tuple(map(_to_record_file, fields.objects("files"))),
        )
        if manifest._to_values() != values:
            raise ValueError("it has fields that no manifest has")
        if len({file.where for file in manifest.files}) < len(manifest.files):
            raise ValueError("it names a record file twice")
        return manifest


def _to_record_file(fields: Fields) -> RecordFile:
    file = RecordFile(
        where=fields.text("where"),
        num_bytes=fields.whole("num_bytes", 0, MOST),
        num_rows=fields.whole("num_rows", 0, MOST),
        crc32c=fields.whole("crc32c", 0, 2**32 - 1),
    )
    if not is_record_file(file.where):  # the manifest of a stranger must not lead outside the cache
        raise ValueError(f"it names {file.where!r}, which is no record file")
    return file


class Committed(NamedTuple):
    """A manifest, and the version of its file, which is replaced only if it is still of that version."""

    manifest: Manifest
    version: Version


def read_manifest(storage: Storage) -> Manifest:
    """The manifest of a cache. Raises StoreError if it is missing or damaged."""
    return read_committed(storage).manifest


def read_committed(storage: Storage) -> Committed:
    """The manifest of a cache with its version. Raises StoreError if it is missing or damaged."""
    try:
        content, version = read_document(storage, MANIFEST)
        return Committed(Manifest.from_json(content), version)
    except Missing as error:
        if isinstance(storage, LocalStorage):
            raise StoreError(f"{storage.where}: damaged: {MANIFEST} is missing; {REPAIR}") from error
        raise StoreError(
            f"{storage.where}: holds no whole cache: {MANIFEST} is missing, which `vidlat push` stores last: "
            "run it again"
        ) from error
    except Unreachable:
        raise
    except (StoreError, ValueError) as error:
        raise StoreError(
            f"{storage.where}: damaged: {MANIFEST} cannot be read ({error}); {REPAIR}"
        ) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Replace the manifest of the cache at `path` atomically. The caller holds the cache's lock."""
    filesystem.replace_file(path / MANIFEST, manifest.to_json())


def commit_manifest(storage: Storage, manifest: Manifest, version: Version) -> Committed:
    """Replace the manifest of a cache, which commits what it names.

    In a folder the caller holds the cache's lock. Elsewhere Changed is raised if the manifest is no longer of
    that version.
    """
    if isinstance(storage, LocalStorage):
        write_manifest(storage.folder, manifest)
        return Committed(manifest, version)
    return Committed(manifest, storage.replace(MANIFEST, manifest.to_json(), version))


def _checksum(values: dict[str, Any]) -> int:
    """Of all fields but the checksum itself."""
    crc32c: int = google_crc32c.value(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    return crc32c
