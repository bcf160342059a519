"""What became of the files that a cache was encoded from, and how its records tell of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from vidlat.types import Selection, VideoSource

SourceState = Literal["ok", "stale", "vanished", "unknown"]
"""ok: size and time of change are those recorded. stale: one differs. vanished: no file is there.
unknown: it cannot be looked at, for want of a right, of a network, or of its name."""

STATE_COLUMNS = ("source_path", "source_num_bytes", "source_mtime_ns", "source_selection")
"""What a record tells of the state of its source, as `source_state` takes it."""


def source_state(path: str, num_bytes: int, mtime_ns: int, selection: str) -> SourceState:
    """The state of a source, given what was recorded of it; its content is not read."""
    if not path:
        return "unknown"
    place = recorded_path(path)
    try:
        now = size_and_time(place, Selection.from_text(selection).files)
    except (FileNotFoundError, NotADirectoryError):
        # Of many files one that is missing is a change: the others may be a video still.
        return "stale" if selection and os.path.exists(place) else "vanished"  # noqa: PTH110
    except (OSError, ValueError):
        return "unknown"
    return "ok" if now == (num_bytes, mtime_ns) else "stale"


def size_and_time(path: str | os.PathLike[str], files: Sequence[str] = ()) -> tuple[int, int]:
    """Bytes and time of change (ns) of a file; of files in a folder sum and latest. Raises OSError."""
    # No Path for each: of a million they would take seconds.
    status = [os.stat(os.path.join(path, name) if name else path) for name in files or [""]]  # noqa: PTH116, PTH118
    return sum(one.st_size for one in status), max(one.st_mtime_ns for one in status)


def content_hash(path: Path, files: Sequence[str] = ()) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of files in a folder that of theirs. Raises OSError."""
    if files:
        hashes = "".join(content_hash(path / name) for name in files)
        return hashlib.sha256(hashes.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_place(source: VideoSource) -> tuple[str, str]:
    """The path of a source and the text of its selection, as a record states them.

    Where names are hidden there is no path, and files are known by a hash of their name.
    """
    path, selection = str(source.path), source.selection
    if source.hides_names:
        path, selection = "", replace(selection, files=tuple(map(hashed_name, selection.files)))
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode(), selection.to_text()


def hashed_name(name: str) -> str:
    """What stands for a name that must not be known: half of its SHA-256, in 32 hexadecimal digits."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def recorded_path(path: str) -> str:
    """The path of a source as the system knows it: a record holds bytes that are no UTF-8 as letters."""
    if "\\udc" not in path or os.path.exists(path):  # noqa: PTH110  (which has these very letters)
        return path
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda code: chr(0xDC00 + int(code[1], 16)), path)
