"""What became of the files that a cache was encoded from."""

from __future__ import annotations

import os
import re
from typing import Literal

SourceState = Literal["ok", "stale", "vanished", "unknown"]
"""ok: size and time of change are those recorded. stale: one differs. vanished: no file is there.
unknown: it cannot be looked at, for want of a right or of a network."""


def source_state(path: str, num_bytes: int, mtime_ns: int) -> SourceState:
    """The state of a source, given its path, size and time of change as recorded; its content is not read."""
    try:
        status = os.stat(recorded_path(path))  # noqa: PTH116  (a Path for each of a million takes seconds)
    except (FileNotFoundError, NotADirectoryError):
        return "vanished"
    except (OSError, ValueError):
        return "unknown"
    return "ok" if (status.st_size, status.st_mtime_ns) == (num_bytes, mtime_ns) else "stale"


def recorded_path(path: str) -> str:
    """The path of a source as the system knows it: a record holds bytes that are no UTF-8 as letters."""
    if "\\udc" not in path:
        return path
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda code: chr(0xDC00 + int(code[1], 16)), path)
