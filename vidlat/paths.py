"""Paths as people write them, on the command line, in manifests and in Python."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vidlat.errors import InputError

CACHE_DIR, CACHE_GB = "VIDLAT_CACHE_DIR", "VIDLAT_CACHE_GB"
"""Environment variables, which processes that this one starts know too: --cache-dir and --cache-gb."""

DEFAULT_CACHE_GB = 100.0

_ENDPOINTS = "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"
_ENDPOINT = re.compile(r"https?://[^\s/]+\S*")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ONE_SLASH = re.compile(r"(s3|gs|az|hf|https):/(?!/)")


def is_address(text: str | Path) -> bool:
    """Whether a text leads to another machine, as `s3://bucket/latents.zarr` does."""
    return _URL.match(str(text)) is not None


def expand(text: str) -> str:
    """A path or pattern on this machine, with a leading `~` expanded.

    Raises InputError for an empty text, a URL, and one that has lost a slash, as in a Path, which is never a
    folder that was meant.
    """
    if not text:
        raise InputError("got an empty text; expected a path")
    if is_address(text):
        raise InputError(f"{text} is a URL; expected a path on this machine: copy or mount it")
    if _ONE_SLASH.match(text):
        raise InputError(
            f"{text} has one slash after the colon; expected two, in a text and not a Path, or the absolute "
            "path of a folder"
        )
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError as error:
        raise InputError(f"{text} names a home folder that is not known; give the whole path") from error


def local_path(text: str | Path) -> Path:
    """As `expand`, for a single path."""
    return Path(expand(str(text)))


def cache_folder() -> tuple[Path, int] | None:
    """The folder for shards of remote caches, and the bytes that it may hold; None if there is none.

    Raises InputError for a limit that is no number.
    """
    folder, limit = os.environ.get(CACHE_DIR, ""), os.environ.get(CACHE_GB) or str(DEFAULT_CACHE_GB)
    if not folder:
        return None
    try:
        num_bytes = int(float(limit) * 1e9)
    except (ValueError, OverflowError):
        num_bytes = 0
    if num_bytes <= 0:
        raise InputError(f"{CACHE_GB}: got {limit!r}; expected a number of gigabytes above 0")
    return local_path(folder).absolute(), num_bytes


def require_endpoint() -> None:
    """Raise InputError where an S3 endpoint in the environment is no URL, at which obstore would panic."""
    for name in _ENDPOINTS:
        endpoint = os.environ.get(name)
        if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
            raise InputError(
                f"{name} in the environment: got {endpoint!r}; expected http://HOST:PORT or https://HOST, "
                "or no such variable"
            )
