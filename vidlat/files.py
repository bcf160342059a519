"""Files among others' files: only regular ones are read, and only new ones written, whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, BufferedReader
from pathlib import Path
from uuid import uuid4

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}


def require_regular_file(path: Path, *, follow: bool = True) -> None:
    """Raise OSError unless a path is a regular file: to open anything else may wait for ever.

    follow: whether a link to one will do.
    """
    mode = path.stat(follow_symlinks=follow).st_mode
    if not stat.S_ISREG(mode):
        raise _wrong_kind(path, mode, "a regular file")


def require_folder(path: Path) -> None:
    """Raise OSError unless a path is a folder, and no link to one."""
    mode = path.lstat().st_mode
    if not stat.S_ISDIR(mode):
        raise _wrong_kind(path, mode, "a folder")


def open_regular_file(
    path: Path, *, create: bool = False, write: bool = False
) -> BufferedReader | BufferedRandom:
    """A regular file, opened for reading; raises OSError for anything else.

    create: open it for writing too, and create it if there is none. write: open it for writing too.
    """
    with suppress(FileNotFoundError):  # which os.open may create
        require_regular_file(path)
    # Without waiting: since that check the file may have become a pipe.
    flags = os.O_RDWR if create or write else os.O_RDONLY
    flags |= os.O_CREAT if create else 0
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise _wrong_kind(path, mode, "a regular file")
    return os.fdopen(handle, "r+b") if create or write else os.fdopen(handle, "rb")


def read_file(path: Path, at_most: int) -> bytes:
    """The content of a regular file; raises OSError for anything else and for more than `at_most` bytes."""
    with open_regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > at_most:
            raise OSError(errno.EFBIG, f"has {size} bytes; expected {at_most} at most", str(path))
        return file.read(size + 1)


Identity = tuple[int, int]
"""A file's inode and time of change, in nanoseconds: another pair once it is replaced or modified."""


def identity_of(status: os.stat_result) -> Identity:
    """The identity of a file of that status."""
    return status.st_ino, status.st_mtime_ns


def replace_file(
    path: Path, content: bytes, temporary_in: Path | None = None, *, own_time: bool = False
) -> Identity:
    """Create or replace a file, whole or not at all; it survives a power failure once this returns.

    temporary_in: the folder in which it is written first, on the same file system; None for its own. A link
    in its place is replaced, not followed.
    own_time: its time of change is this machine's, in nanoseconds. That of a file system has steps of
    milliseconds, in which an inode may be used again.
    """
    with _temporary_file(temporary_in or path.parent, content, own_time) as (temporary, identity):
        temporary.replace(path)
    sync(path.parent)
    return identity


def create_file(path: Path, content: bytes, *, own_time: bool = False) -> Identity:
    """Like `replace_file` for a file that must not exist yet; raises FileExistsError if it does."""
    with _temporary_file(path.parent, content, own_time) as (temporary, identity):
        try:
            os.link(temporary, path)
        except FileExistsError:
            # NFS repeats a link whose answer was lost, and then finds its own.
            if not path.samefile(temporary):
                raise
        temporary.unlink()
    sync(path.parent)
    return identity


@contextmanager
def _temporary_file(folder: Path, content: bytes, own_time: bool) -> Iterator[tuple[Path, Identity]]:
    """A new file of that content, on disk, to be renamed or deleted in the block; deleted if that fails."""
    temporary = folder / temporary_name()
    file = temporary.open("xb")
    try:
        with file:
            file.write(content)
            file.flush()
            if own_time:
                os.utime(file.fileno(), ns=(time.time_ns(), time.time_ns()))
            os.fsync(file.fileno())
            identity = identity_of(os.fstat(file.fileno()))
        yield temporary, identity
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def temporary_name() -> str:
    """A name for a file that is being written: short, since its own may be as long as names can be.

    Nobody can foresee it and put a link in its place. No scan of a folder takes it for an input.
    """
    return f".{uuid4().hex}.partial"


def is_temporary_name(name: str) -> bool:
    """Whether a file of that name is being written, or was when its writer was killed."""
    return re.fullmatch(r"\.[0-9a-f]{32}\.partial", name) is not None


def sync(path: Path) -> None:
    """Make sure that a file's content, or the names in a folder, survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _wrong_kind(path: Path, mode: int, expected: str) -> OSError:
    kind = _KINDS.get(stat.S_IFMT(mode), "a regular file" if stat.S_ISREG(mode) else "no file")
    return OSError(errno.EINVAL, f"is {kind}; expected {expected}", str(path))
