"""Who reads a cache: while anybody does, prune moves and deletes nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from pathlib import Path

from vidlat.errors import StoreError
from vidlat.store.metadata import READERS


def hold_for_reading(path: Path, reader: object) -> None:
    """Keep prune away from the cache at `path` as long as the object `reader` lives.

    Nothing is written: it works on a read-only disk. Where there is no such file, or no locks, nothing is
    held. Raises StoreError if prune is at work.
    """
    try:
        handle = os.open(path / READERS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno == errno.EWOULDBLOCK:
            raise StoreError(f"{path}: vidlat prune is at work here; try again when it has ended") from error
        return
    # Closing, not unlocking: a forked child shares the lock, and must not take it from its parent.
    weakref.finalize(reader, os.close, handle)
