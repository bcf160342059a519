"""Opening files that others may have put there: only regular ones are read, and only new ones written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

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


def read_file(path: Path, at_most: int) -> bytes:
    """The content of a regular file; raises OSError for anything else and for more than `at_most` bytes."""
    require_regular_file(path)
    # Without waiting: since that check the file may have become a pipe.
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _wrong_kind(path, status.st_mode, "a regular file")
        if status.st_size > at_most:
            raise OSError(errno.EFBIG, f"has {status.st_size} bytes; expected {at_most} at most", str(path))
        return file.read(at_most + 1)


def replace_file(path: Path, content: bytes, temporary: Path) -> None:
    """Write a file whole or not at all, under another name first; a link of either name is never followed."""
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as file:  # exclusively: whoever puts a link there meanwhile ends this
        file.write(content)
    temporary.replace(path)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _wrong_kind(path: Path, mode: int, expected: str) -> OSError:
    kind = _KINDS.get(stat.S_IFMT(mode), "a regular file" if stat.S_ISREG(mode) else "no file")
    return OSError(errno.EINVAL, f"is {kind}; expected {expected}", str(path))
