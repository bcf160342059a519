"""The arrays of a cache, opened by tensorstore: its threads do not survive a fork."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vidlat.errors import StoreError

READ_CACHE_BYTES = 32 * 1024**2
"""Memory an array for shard indexes and recent chunks: random windows come four times faster for it."""

_opened_by = 0
"""The process that first opened an array; of a forked child its parent."""


def open_for_reading(path: Path) -> Any:
    """The array at `path`; raises StoreError."""
    # A shard is written once and never changes, so what was read of it (its index above all) stays true.
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path.absolute())},
        "context": {"cache_pool": {"total_bytes_limit": READ_CACHE_BYTES}},
        "recheck_cached_data": "open",
    }
    return _open(path, spec, write=False)


def open_for_writing(path: Path) -> Any:
    """The array at `path`, each write on disk when it is done; raises StoreError."""
    kvstore = {"driver": "file", "path": str(path.absolute()), "file_io_sync": True}
    return _open(path, {"driver": "zarr3", "kvstore": kvstore}, write=True)


def require_unforked() -> None:
    """Raises StoreError in a child of a process that has opened arrays: tensorstore would abort here."""
    if _opened_by not in (0, os.getpid()):
        raise StoreError(
            "this process was forked from one that has read or written latents, and tensorstore does not "
            "survive that: start it anew, in a DataLoader by multiprocessing_context='spawn' or 'forkserver'"
        )


def _open(path: Path, spec: dict[str, Any], *, write: bool) -> Any:
    global _opened_by
    # Imported when latents are read or written: `vidlat info` answers without it.
    import tensorstore as ts

    require_unforked()
    _opened_by = os.getpid()
    try:
        return ts.open(spec, open=True, read=True, write=write).result()
    except ValueError as error:
        raise StoreError(f"{path}: cannot be opened: {error}") from error
