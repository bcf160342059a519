"""The files that a cache was encoded from: their state, size, time and content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vidlat.files import open_regular_file
from vidlat.paths import is_address
from vidlat.types import WHOLE, Source

SourceState = Literal["ok", "stale", "vanished", "unknown"]
"""ok: size and time of change are those recorded. stale: one differs. vanished: the file does not exist.
unknown: it cannot be looked at, for lack of a permission or its name, or because it is in a bucket."""


def source_state(source: Source, *, may_be_elsewhere: bool = False) -> SourceState:
    """The state of a recorded source; its content is not read.

    may_be_elsewhere: it was perhaps read on another machine, so that one that is missing here is unknown.
    """
    if not source.path or is_address(source.path):
        return "unknown"
    try:
        now = size_and_time(source.path, source.selection.files)
    except (FileNotFoundError, NotADirectoryError):
        # One missing file of many is a change: the others may still make up a video.
        is_left = source.selection != WHOLE and os.path.exists(source.path)  # noqa: PTH110
        return "stale" if is_left else "unknown" if may_be_elsewhere else "vanished"
    except (OSError, ValueError):
        return "unknown"
    return "ok" if now == (source.num_bytes, source.mtime_ns) else "stale"


def size_and_time(path: str | os.PathLike[str], files: Sequence[str] = ()) -> tuple[int, int]:
    """Bytes and time of change (ns) of a file; sum and latest of files in a folder. Raises OSError."""
    # No Path for each: for a million they would take seconds.
    status = [os.stat(os.path.join(path, name) if name else path) for name in files or [""]]  # noqa: PTH116, PTH118
    return sum(one.st_size for one in status), max(one.st_mtime_ns for one in status)


def content_hash(path: Path, files: Sequence[str] = ()) -> str:
    """SHA-256 of a file's bytes in hexadecimal; of files in a folder that of their hashes. Raises OSError."""
    if files:
        hashes = "".join(content_hash(path / name) for name in files)
        return hashlib.sha256(hashes.encode()).hexdigest()
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_path(path: str) -> str:
    """The path that a record names, as the system knows it: a record spells bytes that are not UTF-8."""
    if "\\udc" not in path or os.path.exists(path):  # noqa: PTH110  (a file with these very letters)
        return path
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda code: chr(0xDC00 + int(code[1], 16)), path)
