"""Storage in a dataset of a Hugging Face hub, by huggingface_hub: commits of git, to which reads are pinned.

A commit is slow, and the hub limits how many there are. So files are collected, uploaded as they come, and
committed together, the manifest with the last ones. Every commit names its parent, so that another writer's
is noticed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Self

import httpx2
import pyarrow as pa
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    get_session,
    hf_hub_url,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, but not listed in it
    build_hf_headers,
    disable_progress_bars,
    hf_raise_for_status,
    http_backoff,
    validate_repo_id,
)

from vidlat.errors import StoreError
from vidlat.hub_errors import explain
from vidlat.store.layout import MANIFEST, SHARD_FILE
from vidlat.store.storage.interface import (
    Changed,
    Exists,
    Missing,
    Range,
    Unreachable,
    Version,
    checked_key,
    open_in_memory,
)

REQUEST_SECONDS = 60.0
"""One request takes at most between two parts of its answer; huggingface_hub itself would wait for ever."""
UPLOAD_BYTES = 2**26
"""Files are uploaded when there are so many bytes of them."""
UPLOAD_THREADS = 8
COMMIT_FILES = 1000
"""Shards of a commit. The hub allows about a hundred commits an hour."""

MOST_IN_FOLDER, MOST_FILES = 10_000, 100_000
"""What the hub takes in a folder and in a repository."""

_ADDRESS = re.compile(r"hf://datasets/(\w[\w.-]*/\w[\w.-]*)((?:/[\w.-]+)*)(?:@([\w./-]+))?")
_BRANCH = "main"
_TYPE = "dataset"


class HubStorage:
    """The files in a folder of a dataset, at the commit that its branch or revision had when this was made.

    What is created or replaced is durable, and there for others, once the manifest is written.
    """

    is_listed = True

    def __init__(self, address: str, repo: str, folder: str, revision: str) -> None:
        """Raises Unreachable for a dataset or a revision that is not there."""
        disable_progress_bars()
        self.where, self._repo, self._folder = address, repo, folder
        self._api, self._lock = HfApi(), Lock()
        with self._explained():
            self._commit = str(self._api.dataset_info(repo, revision=revision, timeout=REQUEST_SECONDS).sha)
        self._pending: list[CommitOperationAdd] = []
        self._num_pending_bytes = 0
        self._uploaded: list[CommitOperationAdd] = []
        self._present: dict[str, int] = {}

    @classmethod
    def to_read(cls, address: str) -> Self:
        """The storage at hf://datasets/OWNER/NAME[/FOLDER][@REVISION]; raises StoreError for another text."""
        repo, folder, revision = _parts(address)
        return cls(address, repo, folder, revision or _BRANCH)

    @classmethod
    def to_write(cls, address: str, keys: Collection[str]) -> Self:
        """As `to_read`, for these keys to be written; raises StoreError for more than a hub takes."""
        repo, folder, revision = _parts(address)
        if revision:
            raise StoreError(f"{address}: names a revision, which cannot be added to; leave @{revision} out")
        _require_few(address, keys)
        storage = cls(address, repo, folder, _BRANCH)
        storage._present = dict(storage.list())
        return storage

    def read(self, key: str, range: Range | None = None) -> tuple[bytes, Version]:
        """As Storage.read."""
        url = hf_hub_url(self._repo, self._path(key), repo_type=_TYPE, revision=self._commit)
        with self._explained(key):
            answer = http_backoff("GET", url, headers=build_hf_headers(), timeout=REQUEST_SECONDS)
            hf_raise_for_status(answer)
        start, stop = range or (0, None)
        # The hub's own answer states the hash; the last one may be of the server that it leads to.
        tags = [each.headers.get("X-Linked-Etag") for each in (*answer.history, answer)]
        return answer.content[start:stop], Version(next(filter(None, tags), self._commit))

    def open(self, key: str, at_most: int) -> pa.NativeFile:
        """As Storage.open; the content is held in memory."""
        return open_in_memory(self, key, at_most)

    def create(self, key: str, content: bytes) -> Version:
        """As Storage.create; for others once the manifest is written."""
        if key in self._present:
            found, version = self.read(key)
            if found == content:
                return version
            raise Exists(f"{self.where}/{key}: exists; expected no such file")
        return self._add(key, content)

    def replace(self, key: str, content: bytes, version: Version) -> Version:  # noqa: ARG002
        """As Storage.replace; for others once the manifest is written.

        The version needs no comparison: a commit is refused unless its parent is the one that was read.
        """
        return self._add(key, content)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """As Storage.list, without files of git."""
        folder = "/".join(filter(None, (self._folder, prefix)))
        try:
            with self._explained():
                tree = self._api.list_repo_tree(
                    self._repo, folder or None, recursive=True, revision=self._commit, repo_type=_TYPE
                )
                files = [entry for entry in tree if isinstance(entry, RepoFile)]
        except Missing:
            return
        for file in files:
            key = file.path.removeprefix(f"{self._folder}/") if self._folder else file.path
            if not key.startswith(".git"):
                yield key, file.size

    def delete(self, *keys: str) -> None:
        """As Storage.delete, in a commit of its own."""
        with self._lock:
            self._make_commit([CommitOperationDelete(self._path(key), is_folder=False) for key in keys])

    def _add(self, key: str, content: bytes) -> Version:
        """Collect a file; upload what was collected, or commit it, where there is enough of it."""
        operation = CommitOperationAdd(self._path(key), content)
        with self._lock:
            self._pending.append(operation)
            self._num_pending_bytes += len(content)
            is_last = key == MANIFEST
            if is_last or self._num_pending_bytes >= UPLOAD_BYTES:
                self._upload()
            # Between documents nothing is committed, so that they appear with the manifest.
            if is_last or (len(self._uploaded) >= COMMIT_FILES and SHARD_FILE.fullmatch(key)):
                self._make_commit(self._uploaded)
                self._uploaded = []
            return Version(self._commit)

    def _upload(self) -> None:
        with self._explained():
            self._api.preupload_lfs_files(
                self._repo,
                self._pending,
                repo_type=_TYPE,
                revision=_BRANCH,
                num_threads=UPLOAD_THREADS,
                gitignore_content="",  # else what the dataset's own .gitignore matches would be left out
            )
        self._uploaded += self._pending
        self._pending, self._num_pending_bytes = [], 0

    def _make_commit(self, operations: Sequence[CommitOperationAdd | CommitOperationDelete]) -> None:
        """Raises Changed if the branch has another commit by now than the one that was read or made."""
        with self._explained():
            commit = self._api.create_commit(
                self._repo,
                operations,
                commit_message=f"vidlat push: {len(operations)} files",
                repo_type=_TYPE,
                revision=_BRANCH,
                parent_commit=self._commit,
                num_threads=UPLOAD_THREADS,
            )
        self._commit = commit.oid

    def _path(self, key: str) -> str:
        return "/".join(filter(None, (self._folder, checked_key(key, self.where))))

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        """Errors of huggingface_hub, as those of a storage."""
        get_session().timeout = REQUEST_SECONDS
        name = f"{self.where}/{key}" if key else self.where
        try:
            yield
        except RepositoryNotFoundError:
            raise Unreachable(
                f"{self.where}: got no such dataset, or none that you may see; make it on the hub, and "
                "log in with `hf auth login` or set HF_TOKEN"
            ) from None
        except EntryNotFoundError:
            raise Missing(f"{name}: got no such file; expected one") from None
        except OfflineModeIsEnabled:
            raise Unreachable(f"{name}: HF_HUB_OFFLINE forbids asking the hub; unset it") from None
        except (OSError, RuntimeError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _explained(error, name) from None


def _explained(error: Exception, name: str) -> StoreError:
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # of an upload
    if isinstance(error, HfHubHTTPError) and error.response.status_code == 412:
        return Changed(f"{name}: was changed by another process; expected it as it was read: read it again")
    return Unreachable(f"{name}: cannot be reached: {explain(error)}")


def _parts(address: str) -> tuple[str, str, str]:
    """Repository, folder and revision of an address."""
    match = _ADDRESS.fullmatch(address)
    if match and not {".", ".."} & set(match[2].split("/")):
        with suppress(HFValidationError):
            validate_repo_id(match[1])
            return match[1], match[2].strip("/"), match[3] or ""
    raise StoreError(f"{address}: expected hf://datasets/OWNER/NAME[/FOLDER][@REVISION]")


def _require_few(address: str, keys: Collection[str]) -> None:
    entries = {"/".join(parts[:end]) for key in keys if (parts := key.split("/")) for end in _ends(parts)}
    folders = Counter(entry.rpartition("/")[0] for entry in entries)
    most = max(folders.values(), default=0)
    if len(keys) > MOST_FILES or most > MOST_IN_FOLDER:
        raise StoreError(
            f"{address}: {len(keys):,} files were to be sent, {most:,} of them in one folder; a hub takes "
            f"{MOST_FILES:,} and {MOST_IN_FOLDER:,}: push to an object store"
        )


def _ends(parts: Sequence[str]) -> range:
    return range(1, len(parts) + 1)
