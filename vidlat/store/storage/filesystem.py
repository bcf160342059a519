"""The store's only access to storage, today a local or network file system.

Nothing else in the store opens, lists or deletes a file; storage.py is what folders and object stores have in
common. Only regular files are opened: a pipe or a device in their place may wait for ever.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

# A part of this module as well.
from vidlat.files import (
    Identity as Identity,
    create_file as create_file,
    identity_of,
    open_regular_file,
    read_file,
    replace_file as replace_file,
    require_regular_file as require_regular_file,
    sync as sync,
    temporary_name,
)

if TYPE_CHECKING:
    import pyarrow as pa

AnyPath = Path | str

FILE_BYTES = 2**40
"""Of any file, at most."""
DOCUMENT_BYTES = 2**26
"""Of a document, at most: one that names 100,000 record files has a quarter."""

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What flock says on a file system without locks: FUSE, NFS without a lock daemon, Lustre with -o noflock."""


def read(path: Path) -> bytes:
    """The content of a file."""
    return read_file(path, FILE_BYTES)


def read_document(path: Path) -> bytes:
    """The content of a file of at most DOCUMENT_BYTES."""
    return read_file(path, DOCUMENT_BYTES)


def read_with_time(path: Path) -> tuple[bytes, float]:
    """The content of a document and its time of change, in seconds since 1970."""
    return read_document(path), path.stat().st_mtime


def read_end(path: Path, num_bytes: int) -> tuple[bytes, int]:
    """The last `num_bytes` of a file, or all of a shorter one, and the size of the file."""
    with open_regular_file(path) as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(size - num_bytes, 0))
        return handle.read(), size


def read_range(path: Path, start: int, stop: int | None) -> tuple[bytes, Identity]:
    """The content[start:stop] of a file and its identity."""
    with open_regular_file(path) as handle:
        status = os.fstat(handle.fileno())
        start, stop, _ = slice(start, stop).indices(status.st_size)
        handle.seek(start)
        return handle.read(stop - start), identity_of(status)


def open_input(path: Path) -> pa.NativeFile:
    """A file opened for pyarrow, which can still be read after its deletion."""
    from pyarrow.fs import LocalFileSystem  # which a path that is no cache does not need

    require_regular_file(path)
    return LocalFileSystem().open_input_file(str(path))


def kvstore(path: Path) -> dict[str, Any]:
    """A folder as tensorstore's key-value store; a write returns once its data are on disk."""
    return {
        "driver": "file",
        "path": str(path.resolve()),  # since tensorstore refuses ".."
        "file_io_sync": True,
        # A shard is written whole, once, by one worker, into a file of another name that is then renamed. A
        # lock adds nothing, and some file systems have none.
        "file_io_locking": {"mode": "none"},
    }


def write_whole(path: Path, content: bytes) -> None:
    """Create or replace a file, whole or not at all; a power failure may undo it or empty the file."""
    temporary = path.with_name(temporary_name())
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def time_of_change(path: Path) -> float:
    """When a file was last changed, in seconds since 1970; 0 if it is missing or inaccessible."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of a file that cannot have a second name, being on another disk or another user's, for instance."""


def link_or_copy(file: AnyPath, new_file: AnyPath) -> str:
    """Give a file a second name, or copy it where that is impossible.

    Returns why it was copied, empty if it was not. Raises OSError if it fails, FileExistsError if the name is
    taken. The content of a copy is on disk when this returns, `sync_all` makes both names permanent.
    """
    try:
        os.link(file, new_file, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            # NFS repeats a link whose answer was lost, and then finds its own.
            if error.errno == errno.EEXIST and Path(new_file).samefile(file):
                return ""
            raise
        with open_regular_file(Path(file)) as original, Path(new_file).open("xb") as copy:
            shutil.copyfileobj(original, copy)
            copy.flush()
            os.fsync(copy.fileno())  # which reports an error that `sync_all` does not
        return os.strerror(error.errno)
    return ""


def sync_all() -> None:
    """Make sure that all that was written so far, by any process, survives a power failure."""
    os.sync()


def rename(path: Path, new_path: Path) -> None:
    """Rename a file or folder atomically; `sync` makes the new name permanent."""
    path.rename(new_path)


def link(path: Path, new_path: Path) -> None:
    """Give a file a second name. Raises FileExistsError if that is taken."""
    os.link(path, new_path)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, if they are missing."""
    path.mkdir(parents=True, exist_ok=True)


def make_durable_folder(path: Path) -> None:
    """Create a folder and its parents, if they are missing; what it creates survives a power failure."""
    if not path.is_dir():
        make_durable_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def make_durable_folders_between(top: Path, path: Path) -> None:
    """Create the folders below `top` down to `path`, if they are missing; all survive a power failure.

    Also those that exist: whoever created them may have been killed before it made sure of that.
    """
    for folder in reversed([path, *path.parents]):
        if top in folder.parents:
            folder.mkdir(exist_ok=True)
            sync(folder.parent)


def create_folder(path: AnyPath) -> None:
    """Create a folder. Raises FileExistsError if anything has its name, a link too."""
    os.mkdir(path)  # noqa: PTH102  (as below)


def touch(path: Path) -> float:
    """Set the time of change of a file to now; returns it, by the clock of the file system."""
    os.utime(path)
    return path.stat().st_mtime


def delete(path: Path) -> None:
    """Delete a file; nothing happens if there is none."""
    path.unlink(missing_ok=True)


def delete_tree(path: Path) -> None:
    """Delete a file, or a folder and its content; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        delete(path)


def delete_empty_folder(path: Path) -> None:
    """Delete a folder. Raises OSError if it is missing or not empty."""
    path.rmdir()


def exists(path: Path) -> bool:
    """Whether there is a file or folder."""
    return path.exists()


def is_folder(path: Path) -> bool:
    """Whether there is a folder."""
    return path.is_dir()


def is_regular_file(path: AnyPath) -> bool:
    """Whether there is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def is_link(path: Path) -> bool:
    """Whether there is a symbolic link."""
    return path.is_symlink()


def list_names(folder: AnyPath) -> list[str]:
    """The names in a folder, sorted; none if there is no such folder."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  (a Path for each of a million names takes seconds)
    except FileNotFoundError:
        return []


def list_files(path: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, links to folders among them, or the file that `path` is."""
    if not is_folder(path):
        yield path
    for folder, folders, names in os.walk(path):
        links = (name for name in folders if os.path.islink(f"{folder}/{name}"))  # noqa: PTH114  (as above)
        yield from (Path(folder, name) for name in chain(names, links))


def walk_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Each file below a folder, relative to it, and its size; none if there is no such folder.

    Raises OSError for a folder that cannot be listed. What is deleted meanwhile may be left out.
    """
    for parent, _, names in os.walk(folder, onerror=_raise_unless_missing):
        for name in names:
            path = f"{parent}/{name}"
            with suppress(FileNotFoundError):
                yield os.path.relpath(path, folder), size(path)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def size(path: AnyPath) -> int:
    """Bytes of a file."""
    return os.stat(path).st_size  # noqa: PTH116  (as above)


def size_or_zero(path: AnyPath) -> int:
    """Bytes of a file, 0 if it is missing or inaccessible."""
    try:
        return size(path)
    except OSError:
        return 0


def size_and_names(path: AnyPath) -> tuple[int, int]:
    """Bytes of a file and the number of its names, its hard links; (0, 1) if it is missing."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0, 1
    return status.st_size, status.st_nlink


def identity(path: Path) -> Identity | None:
    """A value that changes when the file is replaced or modified; None if it is missing."""
    try:
        return identity_of(path.lstat())
    except OSError:
        return None


def free_bytes(path: Path) -> int:
    """Free bytes on the file system of `path`, which need not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


class OpenFolder:
    """A folder kept open, so that its removal, or another folder in its place, is noticed."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._identity = os.fstat(handle).st_dev, os.fstat(handle).st_ino
        weakref.finalize(self, os.close, handle)  # an open folder's number is not given to another

    def is_in_place(self) -> bool:
        """Whether the path still leads to this folder."""
        try:
            now = self._path.stat()
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == self._identity


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock the file `path` exclusively; the system releases the lock of a killed process.

    Gives whether it is locked: on a file system without locks it is not. Raises BlockingIOError if another
    process holds a lock and `wait` is False.
    """
    with open_regular_file(path, create=True) as handle:
        yield _lock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked_in_place(path: Path) -> Iterator[Identity]:
    """Lock the file that stands at `path`, as long as its replacement takes; gives its identity.

    If it was replaced while its lock was waited for, the new one is locked. Raises FileNotFoundError if there
    is none, OSError on a file system without locks.
    """
    while True:
        with open_regular_file(path, write=True) as handle:
            if not _lock(handle, fcntl.LOCK_EX):
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path))
            locked_file = identity_of(os.fstat(handle.fileno()))
            if identity_of(path.stat()) == locked_file:
                yield locked_file
                return


def _lock(handle: IO[bytes], operation: int) -> bool:
    try:
        fcntl.flock(handle, operation)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def lock_shared(path: Path, *, wait: bool = True) -> ExitStack:
    """Lock the file `path` together with others, until the returned context is closed.

    Works on a read-only disk. Locks nothing if the file is missing or the file system has no locks. Raises
    BlockingIOError if another process holds an exclusive lock and `wait` is False.
    """
    lock = ExitStack()
    try:
        handle = open_regular_file(path)
        # Closed, not unlocked: a forked child shares the lock and must not release its parent's.
        lock.callback(handle.close)
        fcntl.flock(handle, fcntl.LOCK_SH if wait else fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise
    except OSError:
        pass
    return lock
