"""Which storage a path or an address leads to, and whether two writers are safe from each other there."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vidlat.errors import InputError, StoreError
from vidlat.files import temporary_name
from vidlat.paths import is_address, local_path
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Changed, Exists, Storage, Unreachable
from vidlat.store.storage.local import LocalStorage

if TYPE_CHECKING:
    from vidlat.store.storage.objects import ObjectStorage

WRITTEN = ("s3", "gs", "az")
_EXPECTED = "expected a folder, s3://, gs:// or az://"

_PUBLISHED = "expected an address: s3://, gs://, az:// or hf://datasets/, or https:// to pull from"


def open_storage(where: str, *, write: bool = False) -> Storage:
    """The storage at a path, or at an address: s3://, gs://, az:// or, for reading, https://.

    write: create the folder, or find out that the object store has conditional writes; leaves nothing there.
    Raises StoreError, and Unreachable where there is no such folder or the object store does not answer.
    """
    if not is_address(where):
        return LocalStorage(local_path(where), create=write)
    require_address(where, write=write)
    if find_spec("obstore") is None:
        raise StoreError(f"{where}: needs obstore, which is not installed: pip install 'vidlat[remote]'")
    from vidlat.store.storage.objects import ObjectStorage

    storage = ObjectStorage.at(where)
    if write:
        require_conditional_writes(storage, where)
    return storage


def require_address(where: str, *, write: bool = False) -> None:
    """Raise StoreError for an address that no cache can be read from, or written to; asks nobody there."""
    scheme, _, place = where.partition("://")
    if scheme == "hf":
        raise StoreError(
            f"{where}: a hub is not read or written in place; {_EXPECTED}: `vidlat pull` fetches from a hub, "
            "and `vidlat push` sends to it"
        )
    if scheme not in (*WRITTEN, "https"):
        raise StoreError(f"{where}: got {scheme}://; {_EXPECTED}, or https:// to read from")
    if not place.strip("/"):
        raise StoreError(f"{where}: got no name; expected {scheme}://BUCKET/FOLDER")
    if scheme == "https" and write:
        raise StoreError(f"{where}: can be read, not written; {_EXPECTED}")


def open_published(address: str, keys: Collection[str] | None = None) -> Storage:
    """The storage at an address that a cache is pushed to or pulled from: as for `open_storage`, or hf://.

    keys: of what is to be written there; None to read. Raises as `open_storage`.
    """
    scheme, separator, _ = address.partition("://")
    if not separator:
        raise StoreError(f"{address}: is a path; {_PUBLISHED}: copy or link a cache on this machine yourself")
    if scheme != "hf":
        return open_storage(address, write=keys is not None)
    from vidlat.store.storage.hub import HubStorage

    return HubStorage.to_read(address) if keys is None else HubStorage.to_write(address, keys)


def cache_storage(where: str | Path) -> Storage:
    """The storage of a cache to read, at a path or an address. Raises StoreError if there is none."""
    return open_storage(str(where)) if is_address(where) else local_cache(local_path(where))


def require_folder(where: str | Path, action: str) -> Path:
    """The path of a cache that a command, such as "prune", needs in a folder; InputError for an address."""
    if not is_address(where):
        return local_path(where)
    raise InputError(
        f"{where}: is not in a folder; expected one to {action}: `vidlat pull` copies it into one"
    )


def local_cache(path: Path) -> LocalStorage:
    """The storage of the cache in a folder. Raises StoreError if there is no such folder."""
    try:
        if filesystem.is_folder(path):
            return LocalStorage(path)
        if filesystem.exists(path):
            raise StoreError(f"{path}: is a file, not a vidlat cache, which is a folder")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    raise StoreError(f"{path}: is not a vidlat cache: no such folder; `vidlat encode --out` makes one")


def require_conditional_writes(storage: ObjectStorage, where: str) -> None:
    """Raise StoreError unless a store refuses to create what exists and to replace what has changed.

    Some stores ignore such a condition, and some expect it in a form of their own, which the storage learns.
    """
    key = temporary_name()
    try:
        first = storage.create(key, b"1")
    except Unreachable as error:  # nobody knows that object
        raise Unreachable(str(error).replace(f"/{key}", "")) from None
    try:
        refused = _raises(Exists, lambda: storage.create(key, b"2"))
        storage.learn_conditions(key, b"1", first)
        storage.replace(key, b"3", storage.read(key)[1])
        refused = _raises(Changed, lambda: storage.replace(key, b"4", first)) and refused
    finally:
        storage.delete(key)
    if not refused:
        raise StoreError(
            f"{where}: this store has no conditional writes, without which two writers can lose each other's "
            "videos; encode into a folder and push that"
        )


def _raises(expected: type[StoreError], write: Callable[[], object]) -> bool:
    try:
        write()
    except expected:
        return True
    return False
