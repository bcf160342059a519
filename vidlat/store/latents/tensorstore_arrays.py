"""The arrays of a cache, opened by tensorstore, whose threads do not survive a fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.errors import StoreError
from vidlat.store.process import process_id, require_room
from vidlat.store.storage import filesystem

READ_CACHE_BYTES = 32 * 1024**2
"""Memory per array for shard indexes and recent chunks, which makes random windows four times faster."""

_opened_by = 0
"""The process that first opened an array; in a forked child its parent."""


def open_for_reading(
    path: Path, metadata: dict[str, Any] | None = None, cache_bytes: int = READ_CACHE_BYTES
) -> Any:
    """The array at `path`, as its zarr.json or as `metadata` describes it. Raises StoreError."""
    spec: dict[str, Any] = {
        # A shard is written once and never changes, so its index need not be read again.
        "context": {"cache_pool": {"total_bytes_limit": cache_bytes}},
        "recheck_cached_data": "open",
    }
    if metadata is not None:
        spec |= {"metadata": metadata, "open": True, "assume_metadata": True}
    return _open(filesystem.kvstore(path), {"open": True, **spec}, str(path))


def encode_shard(metadata: dict[str, Any], values: npt.NDArray[np.float16]) -> bytes:
    """The content of the file of a shard; metadata: of an array of its shape (L, t, h, w).

    Raises StoreError in a forked child.
    """
    shard = _open({"driver": "memory"}, {"metadata": metadata, "create": True}, "a shard")
    shard.write(values).result()
    content: bytes = shard.kvstore["c/0/0/0/0"]
    return content


def require_usable() -> None:
    """Raise where tensorstore would abort: in a forked child, or without memory for its threads.

    StoreError in a child of a process that has opened arrays, MemoryError without address space.
    """
    require_room()
    if _opened_by not in (0, process_id()):
        raise StoreError(
            "this process was forked from one that has read or written latents, which tensorstore does not "
            "survive; start it with multiprocessing_context='spawn' or 'forkserver'"
        )


def _open(kvstore: dict[str, Any], spec: dict[str, Any], where: str) -> Any:
    global _opened_by
    # Imported when latents are read or written: `vidlat info` does without.
    import tensorstore as ts

    require_usable()
    _opened_by = process_id()
    try:
        return ts.open({"driver": "zarr3", "kvstore": kvstore, **spec}).result()
    except ValueError as error:
        raise StoreError(f"{where}: cannot be opened: {error}") from error
