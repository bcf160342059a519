"""What --input names on this machine."""

from __future__ import annotations

import glob
from pathlib import Path

from vidlat.errors import InputError


def require_input(text: str) -> None:
    """Raise InputError for a path that does not exist, or a pattern that matches nothing."""
    if Path(text).exists():
        return
    if not glob.has_magic(text):
        raise InputError(f"--input {text}: no such file or folder")
    if next(glob.iglob(text, recursive=True), None) is None:  # noqa: PTH207  (may be absolute)
        raise InputError(f"--input {text}: the pattern matches nothing")
