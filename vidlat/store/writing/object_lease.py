"""The lease of a cache in an object store: an object that its holder replaces again and again.

No clock is compared: a holder on another machine counts as dead if its lease has not changed while this
process has looked at it for STALE_SECONDS. What keeps a dead holder that wakes up from writing is not the
lease, but the manifest, which whoever takes over replaces at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from uuid import uuid4

from vidlat.errors import StoreError
from vidlat.store.layout import LEASE
from vidlat.store.process import this_process
from vidlat.store.storage.interface import Changed, Exists, Missing, Storage, Version, read_document
from vidlat.store.writing.lease import STALE_SECONDS, LeaseHolder, parse_lease
from vidlat.store.writing.writer import OnWait, not_told

HEARTBEAT_SECONDS = 15.0
"""Four of them fit into STALE_SECONDS; each is a request."""

LOOK_SECONDS = 2.0
"""Between two looks at another holder's lease."""


class ObjectLease:
    """A cache in an object store, held for writing by this process.

    taken_from: the dead holder whose lease was taken over, if any.
    """

    has_locks = True

    def __init__(self, storage: Storage, purpose: str) -> None:
        self.taken_from: LeaseHolder | None = None
        self._storage, self._token, self._lock = storage, uuid4().hex, Lock()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._fields = asdict(this_process()) | {"purpose": purpose, "since": since, "token": self._token}
        self._num_beats = 0
        self._version: Version | None = None
        self._is_lost = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """As WriteLease.held. Others are kept away by the versions of what is replaced, not in here."""
        if self._is_lost:
            raise self._lost()
        try:
            yield
        except (Changed, Exists) as error:  # the manifest, or the record file of the next commit
            self._is_lost = True
            raise self._lost() from error

    def take(self, on_wait: OnWait = not_told) -> None:
        """Create the lease, or take it from a holder that has released it or is dead.

        Raises StoreError if another process holds the cache, Unreachable if the store gives no answer.
        """
        while self._version is None:
            try:
                self._version = self._storage.create(LEASE, self._content())
            except Exists:
                self._take_over(on_wait)

    def beat(self) -> None:
        """Show that this process is alive; after any failure the next beat begins anew."""
        with self._lock, suppress(StoreError):
            self._num_beats += 1
            self._replace(self._content())

    def release(self) -> None:
        """Say that the cache is free, if this process still holds it."""
        with self._lock, suppress(StoreError):
            self._replace(json.dumps({"released": self._token}).encode())

    def _replace(self, content: bytes) -> None:
        if self._is_lost or self._version is None:
            return
        try:
            self._version = self._storage.replace(LEASE, content, self._version)
        except Changed:
            self._renew(content)

    def _renew(self, content: bytes) -> None:
        """Write a lease that is not as it was left: perhaps by a beat of our own whose answer was lost."""
        try:
            found, version = read_document(self._storage, LEASE)
        except Missing:  # somebody has deleted it
            self._version = self._storage.create(LEASE, content)
            return
        self._is_lost = parse_lease(found, 0).token != self._token
        if not self._is_lost:
            self._version = self._storage.replace(LEASE, content, version)

    def _take_over(self, on_wait: OnWait) -> None:
        """Replace the lease that is there, or return if it has changed or gone; StoreError if it is held."""
        try:
            content, version = read_document(self._storage, LEASE)
        except Missing:
            return
        holder = None if _is_released(content) else parse_lease(content, 0)
        if holder:
            self._require_dead(holder, version, on_wait)
        with suppress(Changed):
            self._version = self._storage.replace(LEASE, self._content(), version)
            self.taken_from = holder

    def _require_dead(self, holder: LeaseHolder, version: Version, on_wait: OnWait) -> None:
        """Raise StoreError unless a holder is dead, or gives no sign of life for STALE_SECONDS."""
        is_running = holder.process.is_running() if holder.process else None
        if is_running is False:
            return
        if is_running is None:
            on_wait(f"Waiting up to {STALE_SECONDS:.0f} s for a sign of life of {holder}.")
        end = time.monotonic() + STALE_SECONDS
        while is_running is None and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            try:
                is_running = True if read_document(self._storage, LEASE)[1] != version else None
            except Missing:
                return
        if is_running:
            raise StoreError(
                f"{self._storage.where}: in use by {holder}: wait until it has finished, or stop it"
            )

    def _content(self) -> bytes:
        # Changed by every beat: the version of equal content may be equal.
        return json.dumps(self._fields | {"beats": self._num_beats}, indent=2).encode()

    def _lost(self) -> StoreError:
        return StoreError(
            f"{self._storage.where}: another process has taken it over, because this one seemed dead, or has "
            "written to it; what was committed is safe, run the same command again"
        )


@contextmanager
def hold_object(storage: Storage, purpose: str, on_wait: OnWait = not_told) -> Iterator[ObjectLease]:
    """Hold a cache in an object store for writing; purpose: the command, named to others."""
    lease = ObjectLease(storage, purpose)
    is_over = Event()
    heart = Thread(target=_beat_until, args=(is_over, lease), name="lease", daemon=True)
    try:
        lease.take(on_wait)
        heart.start()
        yield lease
    finally:
        is_over.set()
        if heart.is_alive():
            heart.join()
        lease.release()


def _beat_until(is_over: Event, lease: ObjectLease) -> None:
    while not is_over.wait(HEARTBEAT_SECONDS):
        lease.beat()


def _is_released(content: bytes) -> bool:
    try:
        return "released" in json.loads(content)
    except (ValueError, TypeError, RecursionError):
        return False
