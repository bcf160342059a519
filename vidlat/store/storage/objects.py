"""Storage in an object store, by obstore: conditional PUT decides between writers.

obstore repeats a request that fails. Where the answer to a write is lost, nothing says whether it was
applied, and its repetition is refused because of itself. So the key is read back after a refusal, and its
bytes decide.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from random import Random
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import pyarrow as pa
from obstore.exceptions import BaseError
from obstore.store import from_url

from vidlat.errors import StoreError
from vidlat.paths import require_endpoint
from vidlat.store.process import process_id
from vidlat.store.storage.interface import (
    Changed,
    Exists,
    Missing,
    Range,
    Version,
    beyond,
    checked_key,
    checked_range,
    open_in_memory,
)
from vidlat.store.storage.object_errors import (
    RETRY_SECONDS,
    explained,
    is_beyond,
    is_missing,
    is_refused,
    may_pass,
    what_was_got,
)

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta, PutMode, PutResult
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

REQUEST_SECONDS = 30.0
"""One request takes at most, with its body; a repeated read goes on where the last one ended."""
CONNECT_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
"""The first pause before a repetition, and the longest: each is up to twice the last."""
NUM_RETRIES = 3
"""Repetitions of one request by obstore, before it is begun anew and its user is told."""
PATIENCE_SECONDS = 5.0
"""How long a store may give no answer before its user is told."""

Answer = TypeVar("Answer")

_PROCESS = process_id()
_LOG = logging.getLogger(__name__)
_JITTER = Random()  # its own: threads that repeat requests leave the numbers of `random` to the program
_ERRORS = (BaseError, OSError)


class ObjectState(NamedTuple):
    """An object's key, its size in bytes and the whole second of its last change, in nanoseconds."""

    key: str
    num_bytes: int
    mtime_ns: int


class ObjectStorage:
    """Objects below an address; a web server's can be read and no more. Credentials are the environment's.

    With obstore's repetitions a request takes RETRY_SECONDS + REQUEST_SECONDS at most; it is begun anew until
    RETRY_SECONDS have passed. So a read, a deletion and a page of a listing end within 150 seconds. A write,
    which is read back before it is begun anew, ends within five minutes.
    """

    def __init__(self, store: ObjectStore, where: str) -> None:
        self._store, self.where = store, where.rstrip("/")
        self.is_listed = not where.startswith("http")
        self._has_quoted_tags = True

    @classmethod
    def at(cls, where: str) -> Self:
        """The storage at an address, which is not asked yet.

        Raises Unreachable if settings are missing, InputError for an endpoint that is no URL.
        """
        if where.startswith("s3:"):
            require_endpoint()
        # By plain HTTP only if the endpoint in the environment says so.
        client: ClientConfig = {
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "allow_http": not where.startswith("https:"),
        }
        retries: RetryConfig = {
            "max_retries": NUM_RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_PAUSE_SECONDS),
                "max_backoff": timedelta(seconds=LONGEST_PAUSE_SECONDS),
                "base": 2,
            },
        }
        try:
            return cls(from_url(where, client_options=client, retry_config=retries), where)
        except BaseError as error:
            raise explained(error, where) from None

    def read(self, key: str, range: Range | None = None) -> tuple[bytes, Version]:
        """As Storage.read."""
        options = _options(range)
        content, version = self._ask(key, lambda store: _content(store.get(key, options=options)), range)
        if range and not content:
            raise beyond(self._name(key), range[0])
        return content, version

    def open(self, key: str, at_most: int) -> pa.NativeFile:
        """As Storage.open; the content is held in memory."""
        return open_in_memory(self, key, at_most)

    def create(self, key: str, content: bytes) -> Version:
        """As Storage.create."""
        refusal = Exists(f"{self._name(key)}: exists; expected no such object")
        return self._write(key, content, "create", lambda found: found is not None, refusal)

    def replace(self, key: str, content: bytes, version: Version) -> Version:
        """As Storage.replace."""
        refusal = Changed(
            f"{self._name(key)}: was changed by another process; expected it as it was read: read it again"
        )
        return self._write(key, content, self._update(version), lambda found: found != version, refusal)

    def learn_conditions(self, key: str, content: bytes, version: Version) -> None:
        """Find out how the store compares an ETag: with its quotes, or without them, as Ceph 16 does.

        An object of this version is replaced by its own content, which keeps the answer if it is repeated.
        """
        name, patience = self._name(key), _Patience()
        if not self.where.startswith("s3:"):
            return
        while True:
            try:
                self._put(key, content, self._update(version))
                return
            except _ERRORS as error:
                if is_refused(error):
                    self._has_quoted_tags = False
                    return
                patience.wait(error, name)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """As Storage.list."""
        return ((found.key, found.num_bytes) for found in self.objects(prefix))

    def objects(self, prefix: str = "") -> Iterator[ObjectState]:
        """As `list`, with the times of change."""
        where = self._name(prefix) if prefix else self.where
        last, patience = None, _Patience()
        while True:
            try:
                pages = self._open(read=False).list(prefix or None, offset=last, chunk_size=1000)
                while page := _interruptible(partial(next, pages, None)):
                    for meta in page:
                        yield _state(meta)
                        last = meta["path"]
                    patience = _Patience()
                return
            except _ERRORS as error:  # obstore does not ask again for a page of which a part has arrived
                patience.wait(error, where)

    def state(self, key: str) -> ObjectState:
        """The state of an object, whose content is not read. Raises Missing."""
        return self._ask(key, lambda store: _state(store.head(key)))

    def delete(self, *keys: str) -> None:
        """As Storage.delete."""
        for key in keys:
            self._name(key)
        patience = _Patience()
        while keys:
            try:
                _interruptible(partial(self._open(read=False).delete, keys))
                return
            except _ERRORS as error:
                if is_missing(error):  # said by some stores, which then leave the other keys as they are
                    break
                patience.wait(error, self._name(keys[0]))
        if len(keys) > 1:
            for key in keys:
                self.delete(key)

    def _ask(self, key: str, request: Callable[[ObjectStore], Answer], range: Range | None = None) -> Answer:
        """What the store answers of an object. Raises Missing, and Beyond for a range beyond its end."""
        name, patience = self._name(key), _Patience()
        while True:
            try:
                return _interruptible(lambda: request(self._open()))
            except _ERRORS as error:
                if range and is_beyond(error):
                    raise beyond(name, range[0]) from None
                if is_missing(error):
                    raise Missing(f"{name}: got no such object; expected one") from None
                patience.wait(error, name)

    def _put(self, key: str, content: bytes, mode: PutMode) -> PutResult:
        return _interruptible(
            lambda: self._open(read=False).put(key, content, mode=mode, use_multipart=False)
        )

    def _write(
        self,
        key: str,
        content: bytes,
        mode: PutMode,
        is_taken: Callable[[Version | None], bool],
        refusal: StoreError,
    ) -> Version:
        """Store content on a condition, until it stands there or another writer's does.

        is_taken: whether the version that stands there, None for nothing, rules out that the condition still
        holds.
        """
        name, patience = self._name(key), _Patience()
        while True:
            try:
                return _version(self._put(key, content, mode))
            except _ERRORS as error:
                failure = error
            if not may_pass(failure):
                raise explained(failure, name) from None
            found, version = self._find(key)
            if version and found == content:
                return version
            if is_taken(version):
                raise refusal
            patience.wait(failure, name)

    def _find(self, key: str) -> tuple[bytes, Version | None]:
        try:
            return self.read(key)
        except Missing:
            return b"", None

    def _update(self, version: Version) -> PutMode:
        """The condition that an object has this version. Google's store refuses a generation that is None."""
        tag = version.tag
        if tag is not None and not self._has_quoted_tags:
            tag = tag.strip('"')
        return {"e_tag": tag} if version.generation is None else {"e_tag": tag, "version": version.generation}

    def _name(self, key: str) -> str:
        return f"{self.where}/{checked_key(key, self.where)}"

    def _open(self, *, read: bool = True) -> ObjectStore:
        """The store, to read from or for any request. Raises StoreError where that would wait for ever."""
        if not read and not self.is_listed:
            raise StoreError(
                f"{self.where}: can be read, not written or listed; expected a folder, s3://, gs:// or az://"
            )
        if process_id() != _PROCESS:  # where the threads that send requests were left behind
            raise StoreError(
                f"{self.where}: this process was forked from one that used object stores, so it cannot: "
                "start it as a new one (multiprocessing: spawn or forkserver)"
            )
        return self._store


def _interruptible(request: Callable[[], Answer]) -> Answer:
    """What a request gives, which Ctrl-C need not wait for.

    It comes to the main thread, and not before obstore returns to Python. So another thread waits there; one
    that nobody waits for ends with the process.
    """
    if current_thread() is not main_thread():
        return request()
    answer: Future[Answer] = Future()

    def ask() -> None:
        try:
            answer.set_result(request())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=ask, name="request", daemon=True).start()
    return answer.result()


class _Patience:
    """Pauses between repetitions, none of them begun later than RETRY_SECONDS after the first request."""

    told_at = -math.inf
    """When a user was told last, of whatever request: many fail at once."""

    def __init__(self) -> None:
        self._began, self._pause = time.monotonic(), FIRST_PAUSE_SECONDS

    def wait(self, error: Exception, where: str) -> None:
        """Pause. Raises the error, explained, if a repetition is of no use or no time is left."""
        pause = self._pause * _JITTER.uniform(0.5, 1)
        now = time.monotonic()
        if not may_pass(error) or now + pause > self._began + RETRY_SECONDS:
            raise explained(error, where) from None
        if now > max(self._began + PATIENCE_SECONDS, _Patience.told_at + RETRY_SECONDS):
            _Patience.told_at = now
            _LOG.warning(f"{where}: {what_was_got(error)}; it is asked again for up to {RETRY_SECONDS:.0f} s")
        time.sleep(pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


def _options(range: Range | None) -> GetOptions | None:
    if range is None:
        return None
    start, stop = checked_range(range)
    if stop is not None:
        return {"range": (start, stop)}
    return {"range": {"suffix": -start}} if start < 0 else {"range": {"offset": start}}


def _content(answer: GetResult) -> tuple[bytes, Version]:
    return answer.bytes().to_bytes(), _version(answer.meta)


def _version(stated: ObjectMeta | PutResult) -> Version:
    return Version(stated["e_tag"], stated["version"])


def _state(meta: ObjectMeta) -> ObjectState:
    # Some stores tell a part of a second in a listing, and none when they are asked for one object.
    return ObjectState(meta["path"], meta["size"], int(meta["last_modified"].timestamp()) * 10**9)
