"""Paths as people write them, on the command line, in manifests and in Python."""

from __future__ import annotations

import re
from pathlib import Path

from vidlat.errors import InputError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_address(text: str | Path) -> bool:
    """Whether a text leads to another machine, as `s3://bucket/latents.zarr` does."""
    return _URL.match(str(text)) is not None


def expand(text: str) -> str:
    """A path or pattern on this machine, with a leading `~` expanded; raises InputError for a URL."""
    if is_address(text):
        raise InputError(f"{text} is a URL; expected a path on this machine: copy or mount it")
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError as error:
        raise InputError(f"{text} names a home folder that is not known; give the whole path") from error


def local_path(text: str | Path) -> Path:
    """As `expand`, for a single path."""
    return Path(expand(str(text)))
