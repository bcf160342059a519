"""The objects that videos are encoded from, each named by its address: their size, time and content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vidlat.errors import InputError
from vidlat.paths import is_address
from vidlat.store.sources import content_hash, size_and_time
from vidlat.store.storage.interface import Beyond, Changed, Missing, Version, read_document
from vidlat.store.storage.opening import WRITTEN, open_storage
from vidlat.types import Source

if TYPE_CHECKING:
    from vidlat.store.storage.objects import ObjectStorage

PIECE_BYTES = 2**23
"""Of one request: a slow network takes less than half a minute for it."""

BUCKETS_OPEN = 8
"""Of which a process keeps connections."""


def objects_at(address: str) -> Iterator[tuple[str, Source]]:
    """Each object below an address, or the one that stands there: its name below the folder, and its state.

    The name of a lone object is the last part of its address. Raises InputError if nothing is there, and for
    an address that is none of a bucket; Unreachable.
    """
    bucket, folder = split_address(address)
    if folder and not address.endswith("/"):
        source = object_source(address)
        if source is not None:
            yield folder.rpartition("/")[2], source
            return
    is_empty = True
    for found in _storage(bucket).objects(folder):
        name = found.key[len(folder) :].lstrip("/")
        if name:  # else the mark of an empty folder, as web consoles leave it
            is_empty = False
            yield name, Source(f"{bucket}/{found.key}", found.num_bytes, found.mtime_ns)
    if is_empty:
        raise InputError(
            f"{address}: no such object, and none below it; expected the address of a folder or of an "
            "object, not a pattern"
        )


def object_source(address: str) -> Source | None:
    """The object at an address, None where there is none; raises InputError as `objects_at`, Unreachable."""
    bucket, key = split_address(address)
    try:
        found = _storage(bucket).state(key)
    except Missing:
        return None
    return Source(f"{bucket}/{key}", found.num_bytes, found.mtime_ns)


def object_content(source: Source) -> Iterator[bytes]:
    """The content of an object in pieces.

    Raises Missing, Changed if it is of another size than the source or is replaced meanwhile, Unreachable.
    """
    bucket, key = split_address(source.path)
    first: Version | None = None
    version: Version | None
    for start in range(0, max(1, source.num_bytes), PIECE_BYTES):
        num_expected = min(PIECE_BYTES, source.num_bytes - start)
        is_last = start + num_expected == source.num_bytes
        try:  # a byte more than the last one shows whether the object has grown
            content, version = _storage(bucket).read(key, (start, start + num_expected + is_last))
        except Beyond:
            content, version = b"", first
        if len(content) != num_expected or (start and version != first):
            raise Changed(f"{source.path}: was replaced by another object; expected {source.num_bytes} bytes")
        first = version
        yield content


def source_now(source: Source) -> Source:
    """A source, a file or an object, of the size and time that it has now; its content is not read.

    Raises OSError for a file, Missing and Unreachable for an object.
    """
    if not is_address(source.path):
        num_bytes, mtime_ns = size_and_time(source.path, source.selection.files)
    elif (found := object_source(source.path)) is not None:
        num_bytes, mtime_ns = found.num_bytes, found.mtime_ns
    else:
        raise Missing(f"{source.path}: got no such object; expected one")
    return source._replace(num_bytes=num_bytes, mtime_ns=mtime_ns)


def source_hash(source: Source) -> str:
    """SHA-256 of the content of a source, a file or an object, in hexadecimal.

    Raises OSError for a file, and as `object_content` for an object.
    """
    if not is_address(source.path):
        return content_hash(Path(source.path), source.selection.files)
    content = hashlib.sha256()
    for piece in object_content(source):
        content.update(piece)
    return content.hexdigest()


def read_object(address: str) -> bytes:
    """The content of a small object, such as a table; raises Missing, TooLarge, InputError, Unreachable."""
    bucket, key = split_address(address)
    return read_document(_storage(bucket), key)[0]


def split_address(address: str) -> tuple[str, str]:
    """The address of a bucket and the key in it, empty for all of it; raises InputError for another text."""
    scheme, _, place = address.partition("://")
    bucket, _, key = place.partition("/")
    if scheme not in WRITTEN or not bucket:
        raise InputError(f"{address}: expected s3://BUCKET/FOLDER, gs:// or az://, or a path on this machine")
    return f"{scheme}://{bucket}", key.rstrip("/")


@lru_cache(maxsize=BUCKETS_OPEN)
def _storage(bucket: str) -> ObjectStorage:
    """The storage of a bucket, whose connections are used again."""
    return cast("ObjectStorage", open_storage(bucket))
