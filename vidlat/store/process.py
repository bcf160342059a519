"""Identity of a process, across containers that number their own; and the address space it has left."""

from __future__ import annotations

import mmap
import os
import socket
from dataclasses import dataclass
from pathlib import Path

ROOM_BYTES = 2**27
"""Address space for the first threads of a library: their stacks, and memory to allocate from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process, identified across reboots and containers.

    pid_start: its start, in clock ticks since boot. Without /proc it is 0, and boot_id and pid_namespace are
    empty.
    """

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    pid_start: int

    def is_running(self) -> bool | None:
        """Whether it runs or is stopped; None if this process cannot find out."""
        here = this_process()
        if (self.boot_id, self.pid_namespace) != (here.boot_id, here.pid_namespace):
            return None
        if not self.boot_id and self.host != here.host:
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # another user's process
        start = _start_of(self.pid)
        # Without /proc, or if it hides other users' processes, the number may belong to a later process.
        return start == self.pid_start if start and self.pid_start else None


def process_id() -> int:
    """The number of this process, another one in a forked child."""
    return os.getpid()


def require_room() -> None:
    """Raise MemoryError unless ROOM_BYTES of address space are left; takes microseconds.

    tensorstore and Arrow end the process where they cannot start a thread.
    """
    try:
        mmap.mmap(-1, ROOM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as error:
        room = f"{ROOM_BYTES >> 20} MiB more of address space"
        raise MemoryError(f"reading and writing takes {room}, see `ulimit -v`") from error


def this_process() -> Process:
    """This process."""
    return Process(
        host=socket.gethostname(),
        boot_id=_read_text("/proc/sys/kernel/random/boot_id"),
        pid_namespace=_read_link("/proc/self/ns/pid"),
        pid=os.getpid(),
        pid_start=_start_of(os.getpid()),
    )


def _start_of(pid: int) -> int:
    """Start of a process in clock ticks; 0 if unknown, -1 for a zombie."""
    # The name of the process is in parentheses and may contain any character.
    fields = _read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields:
        return 0
    return -1 if fields[0] in "ZX" else int(fields[19])


def _read_text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _read_link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
