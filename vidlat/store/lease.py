"""Who may write to a cache: one process at a time, known by name, and known to be alive.

The lease is a file that names its holder and shows its heartbeat, on every host that sees the cache. A lock
would do neither, and on some file systems ends at the host; it only keeps two that start at once apart.
"""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from vidlat.errors import StoreError
from vidlat.store import filesystem
from vidlat.store.layout import LEASE, LOCK, PARTIAL, READERS
from vidlat.store.process import Process, this_process

HEARTBEAT_SECONDS = 5.0

STALE_SECONDS = 60.0
"""A holder that the system cannot be asked for, on another host, is dead when silent for longer."""

_tokens_held: set[str] = set()
"""Of this process: a lease of its own that it could not give back must not lock it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """Who holds a cache, alive or not.

    process: None where the lease is damaged: nobody knows. purpose: its command. since: when it took the
    cache, ISO 8601 in UTC. token: of this lease alone. silent_seconds: time since its last heartbeat.
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
        """Whether the process runs or is stopped; its heartbeat tells where the system cannot."""
        if self.process == this_process():
            return self.token in _tokens_held
        is_running = self.process.is_running() if self.process else None
        return self.silent_seconds <= STALE_SECONDS if is_running is None else is_running


class Lease:
    """A cache held for writing by this process.

    taken_from: the holder that died without giving the cache back, None if there was none.
    """

    def __init__(self, path: Path, token: str) -> None:
        self.path = path
        self.token = token
        self.taken_from: LeaseHolder | None = None

    def require_held(self) -> None:
        """Raises StoreError if another process has taken the cache over since; ask under the cache's lock."""
        holder = read_lease(self.path)
        if holder is None:
            raise StoreError(
                f"{self.path}: its lease is gone, perhaps taken over by another process that has ended: what "
                "was committed is safe, run the same command again"
            )
        if holder.token != self.token:
            raise StoreError(
                f"{self.path}: another process has taken it over ({holder}): this one was taken for dead; "
                "what was committed is safe, run the same command again"
            )

    def beat(self) -> None:
        """Show that this process is alive, while the lease is its own; a beat that fails is left out."""
        with suppress(OSError):
            if self._is_own():
                filesystem.touch(self.path / LEASE)

    def release(self) -> None:
        """Give the cache back, if it is still held; where that cannot be written, the process's end does."""
        with suppress(OSError), filesystem.locked(self.path / LOCK):
            if self._is_own():
                filesystem.delete(self.path / LEASE)

    def _is_own(self) -> bool:
        return _parse(filesystem.read(self.path / LEASE), 0).token == self.token


def read_lease(path: Path) -> LeaseHolder | None:
    """Who holds the cache at `path` for writing, or died with it; None if nobody does.

    Raises StoreError if the lease cannot be read.
    """
    try:
        content, heartbeat = filesystem.read_with_time(path / LEASE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path}: its lease cannot be read: {error}") from error
    return _parse(content, silent_seconds=max(0.0, _file_system_time(path) - heartbeat))


def refuse_if_held(path: Path) -> LeaseHolder | None:
    """Raises StoreError naming the holder if a living process holds the cache at `path` for writing.

    Returns the dead one whose lease is still there, if any.
    """
    holder = read_lease(path)
    if holder and holder.is_alive():
        raise StoreError(
            f"{path}: in use by {holder} (last sign of life {holder.silent_seconds:.0f} s ago): "
            "wait for it, or end it"
        )
    return holder


def hold_for_reading(path: Path, reader: object) -> None:
    """Keep prune away from the cache at `path` as long as the object `reader` lives.

    Writes nothing, so that it works on a read-only disk. Raises StoreError while prune runs.
    """
    try:
        release = filesystem.lock_shared(path / READERS, wait=False)
    except BlockingIOError as error:
        raise StoreError(f"{path}: is being pruned by `vidlat prune`; try again when it has ended") from error
    weakref.finalize(reader, release)


@contextmanager
def hold_lease(path: Path, purpose: str) -> Iterator[Lease]:
    """Hold the cache at `path` for writing; purpose: the command, for whoever is refused meanwhile.

    What a dead process held is taken over. Raises StoreError naming the holder if a living one holds it, or
    if the cache cannot be written.
    """
    lease = Lease(path.absolute(), uuid4().hex)
    _tokens_held.add(lease.token)
    try:
        lease.taken_from = _take(lease, purpose)
        with _beating(lease):
            yield lease
    finally:
        try:
            lease.release()  # also where Ctrl-C came while it was being taken
        finally:
            _tokens_held.discard(lease.token)


def _take(lease: Lease, purpose: str) -> LeaseHolder | None:
    """Make the lease's file; returns the dead holder it was taken from, if any."""
    path, file = lease.path, lease.path / LEASE
    since = datetime.now(UTC).isoformat(timespec="seconds")
    content = asdict(this_process()) | {"purpose": purpose, "since": since, "token": lease.token}
    try:
        filesystem.make_folder(file.parent)  # tools that copy a cache may drop empty folders
        with filesystem.locked(path / LOCK):
            dead = refuse_if_held(path)
            filesystem.delete(file)
            try:
                # Create-only: of two hosts that no lock keeps apart, one fails here.
                filesystem.create(file, json.dumps(content, indent=2).encode(), path / PARTIAL)
            except FileExistsError:
                refuse_if_held(path)
                raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from error
    return dead


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


def _parse(content: bytes, silent_seconds: float) -> LeaseHolder:
    """The holder that a lease's content names; one of no known process if it is damaged."""
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
    """A number below `limit`, as systems count processes and ticks; a negative one is a whole group."""
    if not isinstance(value, int) or not 0 <= value < limit:
        raise ValueError(value)
    return value


def _file_system_time(path: Path) -> float:
    """Now, by the clock that stamps heartbeats: hosts that share a file system differ in time."""
    try:
        return filesystem.touch(path / LOCK)
    except OSError:
        return time.time()  # what cannot be touched cannot be taken either: this is for people
