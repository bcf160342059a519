"""A file of a Hugging Face repository in the local cache: downloaded once, verified by hash before use.

Every program built on huggingface_hub shares this cache (HF_HOME, HF_HUB_CACHE), so a file in it is not
trusted by its name. HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN have their usual effect.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlat.documents import Fields, read_json
from vidlat.errors import WeightsError
from vidlat.hub_errors import explain

RECORD_BYTES = 1_000_000
"""Most bytes of a record of hashes."""

_HASH = re.compile("[0-9a-f]{64}|[0-9a-f]{40}")
"""What the hub states: SHA-256 for a file in LFS or Xet, and git's hash for a small one in plain git."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository at a revision. sha256: its published hash; None trusts the first download."""

    repo: str
    revision: str
    filename: str
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.repo} {self.filename} (revision {self.revision})"

    @property
    def record_path(self) -> Path:
        """Where the verified hash is kept: in the repository's folder of the cache, and deleted with it."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"models--{self.repo.replace('/', '--')}" / "vidlat.json"


def find_cached(file: HubFile) -> Path | None:
    """The path of the file in the local cache, not yet verified; None if it is absent. Makes no request."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(file.repo, file.filename, revision=file.revision)
    return Path(path) if isinstance(path, str) else None


def verify(file: HubFile, path: Path, *, reread: bool = False) -> str:
    """The sha256 of a cached file; raises WeightsError if it is not the expected one.

    Expected is the published hash, else the recorded one, else the hash the hub stated at the download, by
    which the cache names the blob. A file of unchanged size and time is not hashed again unless `reread`.
    """
    records = _read_records(file)
    record, stated = records.get(file.filename), _stated_hash(path)
    expected = file.sha256 or (record["sha256"] if record else None)
    status = path.stat()
    if record and not reread and record == _record_of(status, expected):
        return str(expected)
    actual = sha256_of(path)
    if expected and actual != expected:
        raise WeightsError(f"{path}: {_mismatch(file, actual, expected)}")
    if not expected and stated and (like_stated := _hash_like(stated, path)) != stated:
        raise WeightsError(f"{path}: {_mismatch(file, like_stated, stated)}")
    records[file.filename] = _record_of(status, actual)
    draft = file.record_path.with_suffix(".draft")
    try:
        draft.write_text(json.dumps(records, indent=2))
        draft.replace(file.record_path)
    except OSError:
        pass  # A read-only cache: the file is verified, but hashed again next time.
    return actual


def download(file: HubFile) -> Path:
    """Download the file into the local cache and return its path.

    Raises WeightsError, in one line, if the hub cannot be reached or refuses, if it offers a file of another
    hash than expected (nothing is downloaded), or if the bytes received do not have the hash it stated (they
    are removed).
    """
    import httpx2
    from huggingface_hub import hf_hub_download

    try:
        commit, stated = _ask_hub(file)
        cached = find_cached(file)
        if cached and _hash_like(stated, cached) != stated:
            _remove(cached)
        # By commit: a download resumed after a lost connection is one file even if the branch moves.
        path = Path(hf_hub_download(file.repo, file.filename, revision=commit))
        if (actual := _hash_like(stated, path)) != stated:
            _remove(path)
            raise WeightsError(
                f"{file}: the hash of the downloaded file is {actual}, expected {stated}; "
                "it is damaged and was removed; fetch it again"
            )
        # By name: only records that the revision is this commit, for find_cached and other programs.
        path = Path(hf_hub_download(file.repo, file.filename, revision=file.revision))
        verify(file, path, reread=True)
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise WeightsError(f"{file}: {explain(error)}") from error
    return path


def fetch(file: HubFile) -> Path:
    """The verified path of the file, downloaded if the local cache has none; raises as `download`."""
    path = find_cached(file)
    if path is None:
        return download(file)
    verify(file, path)
    return path


def read_record(file: HubFile) -> dict[str, Any] | None:
    """What was recorded when the file was last verified, None before; raises WeightsError if unreadable."""
    return _read_records(file).get(file.filename)


def _read_records(file: HubFile) -> dict[str, dict[str, Any]]:
    """The records of all files of its repository, by file name."""
    try:
        records = Fields(read_json(file.record_path, RECORD_BYTES), "the record")
        return {
            filename: {
                "sha256": records.fields(filename).text("sha256"),
                "num_bytes": records.fields(filename).whole("num_bytes", 0, 2**63),
                "mtime_ns": records.fields(filename).whole("mtime_ns", -(2**63), 2**63),
            }
            for filename in records.names()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{file.record_path}: the recorded hash cannot be read; delete the file to trust the weights anew"
        ) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as 64 hex digits; raises WeightsError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error


def _hash_like(stated: str, path: Path) -> str:
    """The hash of a file of the kind that the hub states of it: SHA-256, or git's of a blob."""
    if len(stated) == 64:
        return sha256_of(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _ask_hub(file: HubFile) -> tuple[str, str]:
    """The commit and hash the hub states; raises WeightsError if there are none or the hash is another."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(file.repo, file.filename, revision=file.revision)
    stated = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    etag = stated.etag or ""
    if stated.commit_hash is None or not _HASH.fullmatch(etag):
        raise WeightsError(f"{file}: {constants.ENDPOINT} states no commit and hash; is it a hub?")
    record = read_record(file)
    expected = file.sha256 or (record["sha256"] if record else None)
    if expected and len(etag) == len(expected) and etag != expected:
        raise WeightsError(f"{file}: the hub's {_mismatch(file, etag, expected)}")
    return stated.commit_hash, etag


def _stated_hash(path: Path) -> str | None:
    """The hash by which the cache names the blob of a file; None where it copies files instead of linking."""
    name = path.resolve().name
    return name if _HASH.fullmatch(name) else None


def _remove(path: Path) -> None:
    """Remove a cached file: its link in the snapshot and the blob it points to."""
    blob = path.resolve()
    path.unlink()
    blob.unlink(missing_ok=True)


def _record_of(status: os.stat_result, sha256: str | None) -> dict[str, Any]:
    return {"sha256": sha256, "num_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _mismatch(file: HubFile, actual: str, expected: str) -> str:
    found = f"hash is {actual}, expected {expected}"
    if file.sha256:
        return f"{found}, the one published for {file}; it is damaged or another file"
    return f"{found}, the one of the first download; to trust the new file, delete {file.record_path}"
