"""How many processor cores and how much memory this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from vidlat.slurm import cores_of_task, memory_of_task

THREADS, LIMITED = "OMP_NUM_THREADS", "VIDLAT_LIMITED_THREADS"
"""What OpenMP reads, and what tells processes that are started later that the user has not set it."""

CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux mounts the control groups, and the list of those that hold this process; see cgroups(7)."""


def num_cores() -> int:
    """Cores that this process may use, at least 1.

    Those of its affinity, or fewer where the control groups of a container or a batch system grant less time,
    or where Slurm does. A part of a core counts as one.
    """
    may_run_on = getattr(os, "sched_getaffinity", None)  # of Linux
    cores = len(may_run_on(0)) if may_run_on else os.cpu_count() or 1
    return max(min([cores, *map(math.ceil, _times()), *cores_of_task()]), 1)


def limit_threads() -> None:
    """Let OpenMP, and so PyTorch, start no more threads than this process has cores.

    It counts the cores of the machine, and threads that share a core wait for each other in loops. A number
    that the user has set stays. Call it before the first import of PyTorch or NumPy, which decide then.
    """
    if num_cores() < (os.cpu_count() or 1) and THREADS not in os.environ:
        os.environ[THREADS] = os.environ[LIMITED] = str(num_cores())


def are_threads_given() -> bool:
    """Whether the user has said how many threads there are to be, and not `limit_threads`."""
    return THREADS in os.environ and LIMITED not in os.environ


def memory_bytes() -> int:
    """Memory that this process may use: that of the machine, or what control groups or Slurm grant of it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_memories(), *memory_of_task()])


def _times() -> Iterator[float]:
    """The cores' worth of time that each control group around this process grants, if it is limited."""
    for folder, is_newer in _groups("cpu"):
        names = ["cpu.max"] if is_newer else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        with suppress(OSError, ValueError):  # of version 2 without a limit: `max 100000`
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
            if quota > 0:  # of version 1 without a limit: -1
                yield quota / period


def _memories() -> Iterator[int]:
    """The bytes that each control group around this process grants, if they are limited.

    Version 1 without a limit says nearly 2^63, more than any machine has.
    """
    for folder, is_newer in _groups("memory"):
        for name in ("memory.max", "memory.high") if is_newer else ("memory.limit_in_bytes",):
            with suppress(OSError, ValueError):  # of version 2 without a limit: `max`
                yield int((folder / name).read_text())


def _groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """The folder of each control group around this process that has a controller; whether it is version 2."""
    with suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            group = PurePosixPath(name.lstrip("/"))
            for folder in (group, *group.parents):
                if not controllers:
                    yield CONTROL_GROUPS / folder, True
                elif controller in controllers.split(","):
                    yield CONTROL_GROUPS / controller / folder, False
