"""Copying a cache from one storage to another, whether it is published or fetched.

The manifest is read first, and its bytes are written last, which commits the copy: no manifest of the target
names what came before. So a copy that is cut off leaves the cache in the target as it was, and the next one
continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from vidlat.errors import StoreError
from vidlat.prefetch import map_ahead
from vidlat.store.copying.divergence import DivergedError, known_shards, read_target, require_no_others
from vidlat.store.copying.snapshot import DOCUMENTS, CacheSnapshot, array_lengths
from vidlat.store.layout import CARD, MANIFEST
from vidlat.store.storage.interface import Changed, Exists, Missing, Storage

T = TypeVar("T")

NUM_TRANSFERS = 16
"""Shards that are copied at once: with 20 ms to each answer, 668 MB/s were measured."""

CARD_MARK = b"<!-- Written by vidlat push, which writes it again"
"""Begins the line of a card that a push may replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPlan:
    """What a copy will do.

    num_files, num_bytes: of the shards and record files to be copied; bytes are None where sizes are unknown.
    num_there: how many of them the target has already, num_to_compare of which are compared by their bytes.
    """

    num_files: int
    num_bytes: int | None
    num_there: int
    num_to_compare: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProgress:
    """What happened: files were copied to the target, or compared with those that it has.

    plan: in the first event, before anything is written; None if nothing is to be done. num_bytes: copied.
    is_card_kept: at the end, whether the target has a README.md that no push wrote, and keeps it.
    """

    plan: CopyPlan | None = None
    num_files: int = 0
    num_bytes: int = 0
    num_compared: int = 0
    is_card_kept: bool = False


def copy_cache(
    source: CacheSnapshot, target: Storage, *, card: bytes | None = None, compare: bool = True
) -> Generator[CopyProgress]:
    """Copy a cache to a storage that holds nothing, an earlier state of it, or a part of an earlier copy.

    card: the content of README.md, which replaces one that a push wrote. compare: whether shards that no
    manifest of the target vouches for are compared by their bytes, and not by their sizes alone. Shards
    without a video are left out. Raises DivergedError if the target holds anything else, StoreError if
    another process writes there meanwhile.
    """
    before = read_target(source, target)
    present = dict(target.list())
    if before is None:
        require_no_others(source, target, present)
    shards = source.shards
    records = sorted(source.record_files)
    known = known_shards(source, before)
    doubtful = [key for key in shards if compare and key in present and key not in known]
    missing = [key for key in shards if key not in present]
    sizes = _sizes(source, target, shards, present)
    num_record_bytes = [len(source.record_files[key]) for key in records if key not in present]
    num_files = len(missing) + len(num_record_bytes)
    yield CopyProgress(
        plan=CopyPlan(
            num_files=num_files,
            num_bytes=None if sizes is None else sum(map(sizes.__getitem__, missing)) + sum(num_record_bytes),
            num_there=len(shards) + len(records) - num_files,
            num_to_compare=len(doubtful),
        )
    )
    # What may be refused comes first, before anything is written.
    for _ in _in_threads(partial(_compare_shard, source, target), doubtful):
        yield CopyProgress(num_compared=1)
    for num_bytes in _in_threads(partial(_copy_shard, source, target), missing):
        yield CopyProgress(num_files=1, num_bytes=num_bytes)
    for key in records:
        content = source.record_files[key]
        if not (before and before.record_files.get(key) == content):
            _create(source, target, key, content)
        if key not in present:
            yield CopyProgress(num_files=1, num_bytes=len(content))
    try:
        yield CopyProgress(is_card_kept=_commit(source, target, before, card))
    except (Exists, Changed) as error:
        raise StoreError(
            f"{target.where}: another process writes to it ({error}); run the same command again"
        ) from error


def _sizes(
    source: CacheSnapshot, target: Storage, shards: Sequence[str], present: Mapping[str, int]
) -> Mapping[str, int] | None:
    """The sizes of files of the source, None on the web.

    Raises StoreError for a shard that is missing, DivergedError for one that has another size in the target.
    """
    if not source.storage.is_listed:
        return None
    sizes = dict(source.storage.list())
    for key in shards:
        if key not in sizes:
            raise _missing_shard(source, key)
        if present.get(key, sizes[key]) != sizes[key]:
            raise _other(source, target, key)
    return sizes


def _in_threads(function: Callable[[str], T], keys: Sequence[str]) -> Iterator[T]:
    return map_ahead(function, keys, NUM_TRANSFERS, 2 * NUM_TRANSFERS)


def _copy_shard(source: CacheSnapshot, target: Storage, key: str) -> int:
    """Copy a shard; returns its bytes."""
    content = _read_shard(source, key)
    _create(source, target, key, content)
    return len(content)


def _compare_shard(source: CacheSnapshot, target: Storage, key: str) -> None:
    """Compare a shard with the one that is there, which has as many bytes."""
    if not _holds(target, key, _read_shard(source, key)):
        raise _other(source, target, key)


def _read_shard(source: CacheSnapshot, key: str) -> bytes:
    storage = source.storage
    try:
        content: bytes = storage.open(key, source.schema.most_shard_bytes).read()
        return content
    except Missing as error:
        raise _missing_shard(source, key) from error


def _holds(target: Storage, key: str, content: bytes) -> bool:
    """Whether these very bytes stand under a key that has as many.

    Most S3 stores state the MD5 of an object as its ETag, and a hub its SHA-256: then it need not be read.
    """
    hashes = hashlib.md5(content, usedforsecurity=False), hashlib.sha256(content)
    _, version = target.read(key, (-1, None))
    if (version.tag or "").strip('"') in [each.hexdigest() for each in hashes]:
        return True
    return target.read(key)[0] == content


def _create(source: CacheSnapshot, target: Storage, key: str, content: bytes) -> None:
    try:
        target.create(key, content)
    except Exists as error:
        raise _other(source, target, key) from error


def _commit(source: CacheSnapshot, target: Storage, before: CacheSnapshot | None, card: bytes | None) -> bool:
    """Write the documents and at last the manifest; delete the record files that it supersedes.

    Returns whether another card was kept. Raises Exists or Changed if another process has written one of them
    meanwhile.
    """
    is_card_kept = False
    for name in DOCUMENTS:
        _write(target, name, source.documents[name], partial(_is_ahead, source, target, name))
    if card is not None:
        is_card_kept = _write(target, CARD, card, lambda found: CARD_MARK not in found)
    if before is None:
        target.create(MANIFEST, source.manifest_json)
        return is_card_kept
    if before.manifest_json != source.manifest_json:
        target.replace(MANIFEST, source.manifest_json, before.version)
    if superseded := sorted(set(before.record_files) - set(source.record_files)):
        target.delete(*superseded)
    return is_card_kept


def _write(target: Storage, key: str, content: bytes, stays: Callable[[bytes], bool]) -> bool:
    """Create a document, or replace it if it differs. Returns whether what is there stays instead."""
    try:
        found, version = target.read(key)
    except Missing:
        target.create(key, content)
        return False
    if found == content:
        return False
    if stays(found):
        return True
    target.replace(key, content, version)
    return False


def _is_ahead(source: CacheSnapshot, target: Storage, name: str, found: bytes) -> bool:
    """Whether a zarr.json is of longer arrays, for a later state that is being copied too: they only grow."""
    there, here = (
        array_lengths(target, {name: content}, source.schema).get(name, 0)
        for content in (found, source.documents[name])
    )
    return there > here


def _missing_shard(source: CacheSnapshot, key: str) -> StoreError:
    return StoreError(
        f"{source.storage.where}: damaged: {key} is missing; `vidlat verify` tells more where the cache "
        "was made"
    )


def _other(source: CacheSnapshot, target: Storage, key: str) -> DivergedError:
    return DivergedError(
        f"{target.where}: its {key} is not that of {source.storage.where}; push to a new place, or pull it "
        "and merge the two"
    )
