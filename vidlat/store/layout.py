"""The files of a cache: their paths, and which file belongs to what. docs/reference/format.md lists them."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

from vidlat.errors import InputError, StoreError
from vidlat.store.storage import filesystem

ARRAYS = ("mean", "std")
RECORDS = "videos/records"
FAILURES = "failures/records"

LOCK = f"{RECORDS}/lock"
"""Locked by a writer for the duration of one operation."""
LEASE = f"{RECORDS}/lease"
"""Names the process that holds the cache for writing; exists only while one does."""
MANIFEST = f"{RECORDS}/manifest.json"
"""Names the record files; replacing it is what commits."""
READERS = f"{RECORDS}/readers"
"""Locked by every reader of latents, so that prune does not remove them."""

ROOT = "zarr.json"
CARD = "README.md"
"""What a published cache is, for people; `vidlat push` writes it."""
OWN_FOLDERS = (
    *(f"{name}{below}" for name in ARRAYS for below in ("", "/c", "/c/0")),
    *("videos", RECORDS, "failures", FAILURES),
)
OWN_FILES = {
    *(ROOT, CARD, LOCK, READERS, MANIFEST),
    *(f"{name}/{ROOT}" for name in (*ARRAYS, "videos", "failures")),
}

SHARD_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
SHARD_FILE = re.compile(rf"(?:{'|'.join(ARRAYS)})/c/0/({SHARD_NUMBER.pattern})/0/0")
RECORD_FILE = re.compile(r"([0-9]{12,18})-([0-9]{12,18})\.parquet")
LAST_COMMIT = 10**18 - 1
"""The greatest number that the name of a record file can hold."""
SET_ASIDE = re.compile(rf"{RECORD_FILE.pattern}\.[0-9a-f]{{8}}\.damaged")
"""A damaged record file that a repair has renamed, so that no reader opens it."""
LEFTOVER = re.compile(r".*(?:\.__lock|\bpartial|#[0-9]+)")
"""A temporary file, of vidlat or of tensorstore."""


def array_document(name: str) -> str:
    """The zarr.json of the array `name`, relative to the cache."""
    return f"{name}/{ROOT}"


def shards_folder(name: str) -> str:
    """The folder that holds one subfolder per shard of the array `name`, relative to the cache."""
    return f"{name}/c/0"


def shard_file(name: str, shard: int) -> str:
    """The file of one shard of the array `name`, relative to the cache."""
    return f"{name}/c/0/{shard}/0/0"


def stored_shards(path: Path, name: str) -> list[int]:
    """The numbers of the shards of the array `name` that have a file in the cache at `path`."""
    folder = path / shards_folder(name)
    numbers = [int(number) for number in filesystem.list_names(folder) if SHARD_NUMBER.fullmatch(number)]
    return [shard for shard in numbers if filesystem.exists(path / shard_file(name, shard))]


def shard_files(path: Path, shard: int) -> list[Path]:
    """The file of shard number `shard` in each array of the cache at `path`."""
    return [path / shard_file(name, shard) for name in ARRAYS]


def record_file(first: int, last: int) -> str:
    """The name of the record file that holds the commits `first` to `last`."""
    return f"{first:012d}-{last:012d}.parquet"


def is_record_file(where: object) -> bool:
    """Whether a path relative to the cache is that of a record file."""
    folder, _, name = str(where).rpartition("/")
    return folder in (RECORDS, FAILURES) and RECORD_FILE.fullmatch(name) is not None


def commits_of(where: str) -> tuple[int, int]:
    """The first and last commit in the record file of that path relative to the cache."""
    first, _, last = where.rpartition("/")[2].removesuffix(".parquet").partition("-")
    return int(first), int(last)


def record_files(folder: Path) -> list[Path]:
    """The record files in a folder, sorted by name."""
    return [folder / name for name in filesystem.list_names(folder) if RECORD_FILE.fullmatch(name)]


def require_own_folders(path: Path) -> None:
    """Raise StoreError for a link in place of a folder: what is written or deleted in it lies elsewhere."""
    for where in OWN_FOLDERS:
        if filesystem.is_link(path / where):
            raise StoreError(f"{path}: {where} is a link; expected a folder: put the folder itself there")


def holds_anything(path: Path) -> bool:
    """Whether a cache cannot be made at `path`, or is there: an empty folder is in no way."""
    return filesystem.exists(path) and (not filesystem.is_folder(path) or bool(filesystem.list_names(path)))


def require_outside_caches(out: Path, *, may_be_one: bool = False) -> None:
    """Raise InputError where `out`, a file or folder to be written for --out, is a cache or lies in one.

    may_be_one: it may be a cache itself.
    """
    path = out.resolve()
    for folder in path.parents if may_be_one else (path, *path.parents):
        if filesystem.exists(folder / MANIFEST):
            what = "is a cache" if folder == path else f"lies in the cache {folder}"
            raise InputError(f"{out}: {what}; give another --out")


def new_build_folder(path: Path) -> Path:
    """The folder in which a new cache at `path` is built before it is renamed."""
    return path.with_name(f".{path.name}.{uuid4().hex}.partial")


def build_folders(path: Path) -> list[Path]:
    """Folders beside the cache at `path` in which processes have built it, and perhaps still do."""
    path = path.absolute()
    name = re.compile(rf"\.{re.escape(path.name)}(?:\.[0-9a-f]{{32}})?\.partial")
    return [path.with_name(found) for found in filesystem.list_names(path.parent) if name.fullmatch(found)]
