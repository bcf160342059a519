"""Inputs in a bucket: objects are found by listing it, and chosen by their names. None is opened."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vidlat.errors import InputError
from vidlat.paths import is_address
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.pipeline.manifest import ManifestRow
from vidlat.prefetch import map_ahead
from vidlat.store.object_sources import object_source, objects_at, split_address
from vidlat.types import Source

OBJECTS_AT_ONCE = 32
"""Asked for their size and time, one by one: each takes a round trip."""

OBJECTS_PER_STEP = 1000
"""After so many objects of a listing its progress is shown."""


class Listing(NamedTuple):
    """Objects below an address with their names relative to it, and the folders of decoded videos there."""

    objects: list[tuple[str, Source]]
    decoded: list[str]


def list_objects(address: str, on_objects: Callable[[int], None]) -> Listing:
    """The objects at an address or below, sorted by name, without hidden ones and decoded videos.

    on_objects: called with the number of objects listed since the last call. Raises as `objects_at`.
    """
    found = sorted(_counted(objects_at(address), on_objects), key=itemgetter(0))
    folders = _folders_of(name for name, _ in found)  # web consoles store an empty object for each
    mark = f"/{DECODED_MARK}"
    decoded = {name.removesuffix(mark) for name, _ in found if name.endswith(mark)}
    objects = [
        (name, source)
        for name, source in found
        if not _is_hidden(name, decoded) and (source.num_bytes or name not in folders)
    ]
    return Listing(objects, [f"{address.rstrip('/')}/{folder}" for folder in sorted(decoded)])


def address_of_row(table: Path | str, row: ManifestRow) -> str | None:
    """The object that a row of a manifest names, None for a file; raises InputError for what is neither.

    table: the path or address of the manifest, which a relative path starts from.
    """
    if is_address(row.path):
        address = row.path
    elif isinstance(table, Path):
        return None
    elif row.path.startswith(("/", "~")):
        raise InputError(
            f"{row.where}: {row.path} is a path on a machine; expected one that starts from the manifest, or "
            "an address"
        )
    else:
        address = f"{table.rpartition('/')[0]}/{row.path}"
    try:
        bucket, key = split_address(address)
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from error
    return f"{bucket}/{posixpath.normpath(key)}"


def sources_of_rows(rows: Iterable[tuple[ManifestRow, str]]) -> Iterator[tuple[ManifestRow, Source]]:
    """Each row with the object at its address; of one that is missing size and time are 0."""
    return map_ahead(
        lambda pair: (pair[0], object_source(pair[1]) or Source(pair[1], 0, 0)),
        rows,
        OBJECTS_AT_ONCE,
        4 * OBJECTS_AT_ONCE,
    )


def _counted(
    objects: Iterable[tuple[str, Source]], on_objects: Callable[[int], None]
) -> Iterator[tuple[str, Source]]:
    number = 0
    for number, found in enumerate(objects, 1):
        if number % OBJECTS_PER_STEP == 0:
            on_objects(OBJECTS_PER_STEP)
        yield found
    on_objects(number % OBJECTS_PER_STEP)


def _folders_of(names: Iterable[str]) -> set[str]:
    folders: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _is_hidden(name: str, decoded: set[str]) -> bool:
    if name.startswith(".") or "/." in name:
        return True
    return bool(decoded) and any(str(folder) in decoded for folder in PurePosixPath(name).parents)
