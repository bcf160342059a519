"""A weights file in the local Hugging Face cache, and the proof that its bytes are the ones meant.

The cache is the one every program built on huggingface_hub shares (HF_HOME, HF_HUB_CACHE); what it holds is
never trusted by its name alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from vidlat.errors import WeightsError

_RECORD_NAME = "vidlat.json"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository at a revision; sha256 is the hash it must have, None where none is known."""

    repo: str
    revision: str
    filename: str
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.repo} {self.filename} (revision {self.revision})"


class KeptRecord(TypedDict):
    """What is remembered of a file once it was hashed: the hash, and how to see that it still holds."""

    sha256: str
    num_bytes: int
    mtime_ns: int


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as 64 hex digits, read in blocks; raises WeightsError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def check_file_hash(path: Path, sha256: str) -> None:
    """Refuse a file whose bytes are not the expected ones; raises WeightsError with both hashes."""
    actual = sha256_of(path)
    if actual != sha256:
        raise WeightsError(f"{path}: sha256 is {actual}, expected {sha256}; it is damaged or another file")


def find_cached(file: HubFile) -> Path | None:
    """The file's path in the local cache, not yet proven; None where it is absent. Never asks the hub."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(file.repo, file.filename, revision=file.revision)
    return Path(path) if isinstance(path, str) else None


def prove_cached(file: HubFile, path: Path, *, reread: bool = False) -> str:
    """Prove that a cached file is the one meant, and return its sha256.

    The expected hash is the published one, else the one kept at first use, else the one under which the
    cache stores the file (which the hub stated when it was downloaded). An unchanged size and time of
    change stand for a hash taken before, unless `reread`. Raises WeightsError when the bytes differ.
    """
    kept = read_record(file)
    expected = file.sha256 or (kept["sha256"] if kept else _blob_hash(path))
    status = path.stat()
    if kept and not reread and kept == _describe(status, expected):
        return kept["sha256"]
    actual = sha256_of(path)
    if expected is not None and actual != expected:
        raise WeightsError(f"{path}: {explain_difference(file, actual, expected)}")
    _write_record(file, _describe(status, actual))
    return actual


def explain_difference(file: HubFile, actual: str, expected: str) -> str:
    """Say which hash was found, which was expected and why, and what to do."""
    found = f"sha256 is {actual}, expected {expected}"
    if file.sha256:
        return f"{found}, the one published for {file}; it is damaged or another file"
    return f"{found}, the one known since first use; to trust the new file, delete {record_path(file)}"


def record_path(file: HubFile) -> Path:
    """Where the hash of a repository's file is kept: beside the cached file, and deleted together with it."""
    return repo_folder(file) / _RECORD_NAME


def read_record(file: HubFile) -> KeptRecord | None:
    """What was kept of the file at an earlier use, None at the first; raises WeightsError if unreadable."""
    path = record_path(file)
    try:
        kept = json.loads(path.read_text())[file.filename]
        return KeptRecord(sha256=kept["sha256"], num_bytes=kept["num_bytes"], mtime_ns=kept["mtime_ns"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{path}: the kept hash cannot be read; delete the file to trust anew") from error


def _describe(status: os.stat_result, sha256: str | None) -> KeptRecord:
    return KeptRecord(sha256=sha256 or "", num_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _write_record(file: HubFile, record: KeptRecord) -> None:
    path = record_path(file)
    draft = path.with_suffix(".draft")
    try:
        draft.write_text(json.dumps({file.filename: record}, indent=2))
        draft.replace(path)
    except OSError:
        # A cache shared read-only: the file is proven all the same, it is only hashed again next time.
        return


def repo_folder(file: HubFile) -> Path:
    """The repository's folder in the local cache, whether it exists or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=file.repo, repo_type="model")


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256 in lower-case hex (files in plain git have a shorter one)."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _blob_hash(path: Path) -> str | None:
    # Where symbolic links work, a cached file is a link to a blob named by the hash the hub stated.
    name = path.resolve().name
    return name if is_sha256(name) else None
