"""Access to a cache: one process writes at a time, and prune waits until no process reads.

The lease is a file that names the writer. Its time of change is the writer's heartbeat, visible on every
host. A file lock shows neither, and some file systems have none or keep it local to a host. It only separates
processes that take the lease at the same time; where it does not, the file of the lease is created only once.
"""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from vidlat.errors import StoreError
from vidlat.files import temporary_name
from vidlat.store.layout import FAILURES, LEASE, LOCK, READERS, RECORDS, require_own_folders
from vidlat.store.process import Process, this_process
from vidlat.store.storage import filesystem

HEARTBEAT_SECONDS = 5.0

STALE_SECONDS = 60.0
"""A holder on another host, which cannot be checked, counts as dead after this time without a heartbeat."""

_tokens_held: set[str] = set()
"""Leases that this process holds: one that it could not delete must not lock it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """The process that holds a cache for writing, dead or alive.

    process: None if the lease is damaged. purpose: the command it runs. since: when it took the lease, ISO
    8601 in UTC. token: unique to the lease. silent_seconds: time since the last heartbeat.
    """

    process: Process | None
    purpose: str
    since: str
    token: str
    silent_seconds: float

    def __str__(self) -> str:
        if self.process is None:
            return "an unknown process (its lease is damaged)"
        return f"`{self.purpose}` on {self.process.host}, process {self.process.pid}, since {self.since}"

    def is_alive(self) -> bool:
        """Whether the process runs or is stopped, judged by its heartbeat if it cannot be checked."""
        if self.process == this_process():
            return self.token in _tokens_held
        is_running = self.process.is_running() if self.process else None
        return self.silent_seconds <= STALE_SECONDS if is_running is None else is_running


class Lease:
    """A cache held for writing by this process.

    taken_from: the dead holder whose lease was taken over, if any. has_locks: whether the file system of the
    cache has locks.
    """

    def __init__(self, path: Path, token: str) -> None:
        self.path = path
        self.token = token
        self.taken_from: LeaseHolder | None = None
        self.has_locks = True

    def require_held(self) -> None:
        """Raises StoreError if another process has taken over the cache. The caller has locked the cache."""
        holder = read_lease(self.path)
        if holder is None:
            raise StoreError(
                f"{self.path}: its lease is gone, perhaps taken over by another process that has ended; what "
                "was committed is safe, run the same command again"
            )
        if holder.token != self.token:
            raise StoreError(
                f"{self.path}: another process has taken it over ({holder}), because this one seemed dead; "
                "what was committed is safe, run the same command again"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the cache for one change. Raises StoreError if another process has taken it over."""
        for folder in (RECORDS, FAILURES):  # tools that copy a cache may drop empty folders
            filesystem.make_folder(self.path / folder)
        with filesystem.locked(self.path / LOCK):
            self.require_held()
            yield

    def beat(self) -> None:
        """Show that this process is alive, if it still holds the lease; errors are ignored."""
        with suppress(OSError):
            if self._is_own():
                filesystem.touch(self.path / LEASE)

    def release(self) -> None:
        """Delete the lease if this process still holds it; otherwise it ends with the process."""
        with suppress(OSError), filesystem.locked(self.path / LOCK):
            _remove(self.path, self.token)

    def _is_own(self) -> bool:
        return parse_lease(filesystem.read_document(self.path / LEASE), 0).token == self.token


def read_lease(path: Path) -> LeaseHolder | None:
    """The process that holds the cache at `path` for writing, dead or alive; None if there is no lease.

    Raises StoreError if the lease cannot be read.
    """
    try:
        content, heartbeat = filesystem.read_with_time(path / LEASE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path}: its lease cannot be read: {error}") from error
    return parse_lease(content, silent_seconds=max(0.0, _file_system_time(path) - heartbeat))


def refuse_if_held(path: Path) -> LeaseHolder | None:
    """Raises StoreError if a running process holds the cache at `path` for writing, and names it.

    Returns the dead holder whose lease is still there, if any.
    """
    holder = read_lease(path)
    if holder and holder.is_alive():
        raise StoreError(
            f"{path}: in use by {holder} (last sign of life {holder.silent_seconds:.0f} s ago): "
            "wait until it has finished, or stop it"
        )
    return holder


def hold_for_reading(path: Path, reader: object) -> None:
    """Keep prune away from the cache at `path` as long as the object `reader` lives; see `reading`."""
    weakref.finalize(reader, reading(path).close)


def reading(path: Path) -> ExitStack:
    """Keep prune away from the cache at `path` until the returned context is closed.

    Writes nothing, so that it works on a read-only disk. Raises StoreError while prune runs.
    """
    try:
        return filesystem.lock_shared(path / READERS, wait=False)
    except BlockingIOError as error:
        raise StoreError(f"{path}: is being pruned by `vidlat prune`; try again when it has ended") from error


@contextmanager
def hold_lease(path: Path, purpose: str) -> Iterator[Lease]:
    """Hold the cache at `path` for writing; purpose: the command, named to processes that are refused.

    Takes over the lease of a dead process. Raises StoreError if a running process holds the cache, or if the
    cache cannot be written.
    """
    lease = Lease(path.absolute(), uuid4().hex)
    _tokens_held.add(lease.token)
    try:
        lease.taken_from = _take(lease, purpose)
        with _beating(lease):
            yield lease
    finally:
        try:
            lease.release()  # also if Ctrl-C came while it was taken
        finally:
            _tokens_held.discard(lease.token)


def _take(lease: Lease, purpose: str) -> LeaseHolder | None:
    """Create the lease; returns the dead holder of the previous one, if any."""
    path, file = lease.path, lease.path / LEASE
    since = datetime.now(UTC).isoformat(timespec="seconds")
    content = asdict(this_process()) | {"purpose": purpose, "since": since, "token": lease.token}
    try:
        require_own_folders(path)
        filesystem.make_folder(file.parent)  # tools that copy a cache may drop empty folders
        with filesystem.locked(path / LOCK) as lease.has_locks:
            dead = refuse_if_held(path)
            if dead:
                _remove(path, dead.token)
            try:
                # Create-only, so that one of two hosts without a common lock fails here.
                filesystem.create_file(file, json.dumps(content, indent=2).encode())
            except FileExistsError:
                refuse_if_held(path)
                raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from error
    return dead


def _remove(path: Path, token: str) -> None:
    """Remove the lease of that token from the cache at `path`, and no other.

    Another lease is left alone: its holder would stop if it missed it for a moment. Where hosts have no lock
    in common, another process may replace the lease even then. So it is renamed first, and what was renamed
    is read: a lease that is not the one is put back, unless a third process has taken its place. Its holder
    then stops at its next step, as one whose lease was taken over.
    """
    file, renamed = path / LEASE, path / RECORDS / temporary_name()
    try:
        if parse_lease(filesystem.read_document(file), 0).token != token:
            return
        filesystem.rename(file, renamed)
    except FileNotFoundError:
        return
    if parse_lease(filesystem.read_document(renamed), 0).token != token:
        with suppress(FileExistsError):
            filesystem.link(renamed, file)
    filesystem.delete(renamed)


@contextmanager
def _beating(lease: Lease) -> Iterator[None]:
    is_over = Event()
    heart = Thread(target=_beat_until, args=(is_over, lease), name="lease", daemon=True)
    heart.start()
    try:
        yield
    finally:
        is_over.set()
        heart.join()


def _beat_until(is_over: Event, lease: Lease) -> None:
    while not is_over.wait(HEARTBEAT_SECONDS):
        lease.beat()


def parse_lease(content: bytes, silent_seconds: float) -> LeaseHolder:
    """The holder that the content of a lease names; of an unknown process if it is damaged."""
    try:
        values = json.loads(content)
        process = Process(
            host=str(values["host"]),
            boot_id=str(values["boot_id"]),
            pid_namespace=str(values["pid_namespace"]),
            pid=_natural(values["pid"], 2**31),
            pid_start=_natural(values["pid_start"], 2**63),
        )
        purpose, since, token = (str(values[name]) for name in ("purpose", "since", "token"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return LeaseHolder(process=None, purpose="", since="", token="", silent_seconds=silent_seconds)
    return LeaseHolder(
        process=process, purpose=purpose, since=since, token=token, silent_seconds=silent_seconds
    )


def _natural(value: object, limit: int) -> int:
    """A number from 0 to below `limit`; a negative number would mean a group of processes."""
    if not isinstance(value, int) or not 0 <= value < limit:
        raise ValueError(value)
    return value


def _file_system_time(path: Path) -> float:
    """Now, by the clock that stamps heartbeats, since the clocks of hosts differ."""
    try:
        return filesystem.touch(path / LOCK)
    except OSError:
        return time.time()  # only shown: a cache that is not writable cannot be taken over either
