"""Storage in a folder: files that are created by a link and replaced by a rename, both after a sync."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vidlat.errors import StoreError
from vidlat.files import is_temporary_name
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import (
    Changed,
    Exists,
    Missing,
    Range,
    Unreachable,
    Version,
    beyond,
    checked_key,
    checked_range,
    too_large,
)

if TYPE_CHECKING:
    import pyarrow as pa


class LocalStorage:
    """The files below a folder. Several processes may write, on several machines if these share locks.

    folder: its absolute path. What a killed process leaves is a file whose name `list` does not show.
    """

    is_listed = True

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.where, self.folder = str(folder), folder.absolute()
        with self._explained():
            if create:
                filesystem.make_durable_folder(self.folder)
            self._require_folder()

    def read(self, key: str, range: Range | None = None) -> tuple[bytes, Version]:
        """As Storage.read."""
        path = self._path(key)
        start, stop = checked_range(range) if range else (0, None)
        with self._explained(), self._readable(path):
            if filesystem.is_folder(path):
                raise Missing(f"{path}: got a folder; expected a file")
            content, identity = filesystem.read_range(path, start, stop)
        if range and not content:
            raise beyond(str(path), start)
        return content, _version(identity)

    def open(self, key: str, at_most: int) -> pa.NativeFile:
        """As Storage.open; the file stays open."""
        path = self._path(key)
        with self._explained(), self._readable(path):
            if filesystem.size(path) > at_most:
                raise too_large(str(path), at_most)
            return filesystem.open_input(path)

    def create(self, key: str, content: bytes) -> Version:
        """As Storage.create."""
        path = self._path(key)
        with self._explained():
            filesystem.make_durable_folders_between(self.folder, path.parent)
            try:
                return _version(filesystem.create_file(path, content, own_time=True))
            except FileExistsError:
                pass
        return self._unless_other(key, content, Exists(f"{path}: exists; expected no such file"))

    def replace(self, key: str, content: bytes, version: Version) -> Version:
        """As Storage.replace. Raises Unreachable on a file system without locks."""
        path = self._path(key)
        changed = Changed(
            f"{path}: was changed by another process; expected it as it was read: read it again"
        )
        try:
            with self._explained(), filesystem.locked_in_place(path) as identity:
                if _version(identity) == version:
                    return _version(filesystem.replace_file(path, content, own_time=True))
            return self._unless_other(key, content, changed)
        except Missing:
            raise changed from None

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """As Storage.list."""
        folder = self._path(prefix) if prefix else self.folder
        with self._explained():
            for name, size in filesystem.walk_files(folder):
                if not is_temporary_name(name.rpartition("/")[2]):
                    yield f"{prefix}/{name}" if prefix else name, size
            self._require_folder()

    def delete(self, *keys: str) -> None:
        """As Storage.delete."""
        paths = [self._path(key) for key in keys]
        with self._explained():
            self._require_folder()
            for path in paths:
                filesystem.delete(path)
            for folder in {path.parent for path in paths}:
                if filesystem.is_folder(folder):
                    filesystem.sync(folder)

    def _path(self, key: str) -> Path:
        return self.folder / checked_key(key, str(self.folder))

    @contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        """Errors of one file, while the folder can be used: then the file is wrong, not the storage."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            self._require_folder()
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None

    def _unless_other(self, key: str, content: bytes, refusal: StoreError) -> Version:
        """The version of a file of this content, also by a writer that was killed before it made sure of it.

        Raises `refusal` if it has another content.
        """
        found, version = self.read(key)
        if found != content:
            raise refusal
        with self._explained():
            filesystem.sync(self._path(key).parent)
        return version

    def _require_folder(self) -> None:
        with self._explained():
            is_there = filesystem.is_folder(self.folder)
        if not is_there:
            where = str(self.folder)
            raise Unreachable(f"{where}: got no folder; expected one: look at the path, or mount its disk")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the system, as those of a storage."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            self._require_folder()
            raise Missing(f"{error.filename}: got no such file; expected one") from None
        except OSError as error:
            # A system call may name a file relative to its folder.
            named, folder = str(error.filename or ""), str(self.folder)
            raise Unreachable(
                f"{named if named.startswith(folder) else folder}: got {error.strerror or error}; expected a "
                "folder to use: look at its permissions and its disk, then start again"
            ) from None


def _version(identity: filesystem.Identity) -> Version:
    return Version("-".join(map(str, identity)))
