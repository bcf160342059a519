"""The manifest of a cache: the record files that make up its present state. Replacing it is what commits.

It names every record file with its size and checksum, so that one that is lost, damaged or exchanged is
noticed. It also holds a second copy of the cache's description, from which a damaged root can be restored.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from vidlat.errors import StoreError
from vidlat.store import filesystem
from vidlat.store.layout import MANIFEST, is_record_file

REPAIR = "`vidlat verify --repair` restores what can be restored"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFile:
    """A record file. where: its path relative to the cache. crc32: of its bytes."""

    where: str
    num_bytes: int
    num_rows: int
    crc32: int


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
        values = asdict(self)
        return json.dumps(values | {"crc32": _checksum(values)}, indent=2).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The inverse of `to_json`. Raises ValueError for anything that it did not write."""
        values = json.loads(content)
        if not isinstance(values, dict) or values.pop("crc32", None) != _checksum(values):
            raise ValueError("its checksum is wrong")
        try:
            files: Sequence[dict[str, Any]] = values.pop("files")
            manifest = cls(**values, files=tuple(RecordFile(**file) for file in files))
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from error
        _require_types(manifest)
        for file in manifest.files:
            _require_types(file)
            if not is_record_file(file.where):  # the manifest of a stranger must not lead outside the cache
                raise ValueError(f"it names {file.where!r}, which is no record file")
        return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of the cache at `path`. Raises StoreError if it is missing or damaged."""
    try:
        return Manifest.from_json(filesystem.read(path / MANIFEST))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: damaged: {MANIFEST} is missing; {REPAIR}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: damaged: {MANIFEST} cannot be read ({error}); {REPAIR}") from error


def write_manifest(path: Path, manifest: Manifest, partial: Path) -> None:
    """Replace the manifest of the cache at `path` atomically. The caller holds the cache's lock."""
    filesystem.replace(path / MANIFEST, manifest.to_json(), partial)


def _require_types(values: Manifest | RecordFile) -> None:
    kinds = {"str": str, "int": int, "dict[str, Any]": dict}
    for field in fields(values):
        value: Any = getattr(values, field.name)
        kind = kinds.get(str(field.type))
        is_absurd = isinstance(value, int) and not 0 <= value < 2**63
        if is_absurd or (kind and type(value) is not kind):
            raise ValueError(f"{field.name} is {value!r}")


def _checksum(values: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
