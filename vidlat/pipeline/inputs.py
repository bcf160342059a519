"""What --input names on this machine."""

from __future__ import annotations

import glob
import os
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


def is_empty_folder(text: str) -> bool:
    """Whether this is a folder with no file below it but hidden ones, and no link to a folder."""
    for parent, folders, names in os.walk(text):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(not name.startswith(".") for name in names):
            return False
        if any((Path(parent) / name).is_symlink() for name in folders):
            return False
    return Path(text).is_dir()
