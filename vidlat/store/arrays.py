"""The arrays of a cache, opened by tensorstore, whose threads do not survive a fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidlat.errors import StoreError
from vidlat.store import filesystem
from vidlat.store.process import process_id, require_room

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
        spec["metadata"] = metadata
    return _open(path, spec)


def open_for_writing(path: Path) -> Any:
    """The array at `path`; data are on disk when a write is done. Raises StoreError."""
    return _open(path, {}, write=True)


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


def _open(path: Path, spec: dict[str, Any], *, write: bool = False) -> Any:
    global _opened_by
    # Imported when latents are read or written: `vidlat info` does without.
    import tensorstore as ts

    require_usable()
    _opened_by = process_id()
    try:
        spec = {"driver": "zarr3", "kvstore": filesystem.kvstore(path), **spec}
        as_described = "metadata" in spec
        return ts.open(spec, open=True, read=True, write=write, assume_metadata=as_described).result()
    except ValueError as error:
        raise StoreError(f"{path}: cannot be opened: {error}") from error
