"""Files that appear whole or not at all, and stay: on one file system, after a kill or a power cut."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, content: bytes, partial: Path) -> None:
    """Write `content` to `path` atomically, over what stands there; `partial` names the temporary file."""
    _write_partial(partial, content)
    partial.rename(path)
    sync_folder(path.parent)


def create_file(path: Path, content: bytes, partial: Path) -> None:
    """Write `content` to `path` atomically. Raises FileExistsError if something stands there."""
    _write_partial(partial, content)
    os.link(partial, path)
    sync_folder(path.parent)
    partial.unlink()


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the file `path` alone among all processes; a killed holder's lock is released by the system.

    Raises BlockingIOError if another holds it and `wait` is False.
    """
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _write_partial(partial: Path, content: bytes) -> None:
    # Never write into what a kill left: it may be a second name of a file that is already in use.
    partial.unlink(missing_ok=True)
    with partial.open("xb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
