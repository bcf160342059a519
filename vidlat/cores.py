"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux mounts the control groups, and the list of those that hold this process; see cgroups(7)."""


def num_cores() -> int:
    """Cores that this process may use, at least 1.

    Those of its affinity, or fewer where the control groups of a container or a batch system grant less time.
    A part of a core counts as one.
    """
    may_run_on = getattr(os, "sched_getaffinity", None)  # of Linux
    cores = len(may_run_on(0)) if may_run_on else os.cpu_count() or 1
    return max(min([cores, *map(math.ceil, _limits())]), 1)


def limit_threads() -> None:
    """Let OpenMP, and so PyTorch, start no more threads than this process has cores.

    It counts the cores of the machine, and threads that share a core wait for each other in loops. A number
    that the user has set stays. Call it before the first import of PyTorch or NumPy, which decide then.
    """
    if num_cores() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(num_cores()))


def _limits() -> Iterator[float]:
    """The cores' worth of time that each control group around this process grants, if it is limited."""
    with suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            group = PurePosixPath(name.lstrip("/"))
            for folder in (group, *group.parents):
                if not controllers:  # version 2
                    yield from _quotient(CONTROL_GROUPS / folder, "cpu.max")
                elif "cpu" in controllers.split(","):
                    yield from _quotient(
                        CONTROL_GROUPS / "cpu" / folder, "cpu.cfs_quota_us", "cpu.cfs_period_us"
                    )


def _quotient(folder: Path, *files: str) -> Iterator[float]:
    """Microseconds of computing over those of a period; nothing where a group has no such limit."""
    with suppress(OSError, ValueError):  # of version 2 without a limit: `max 100000`
        quota, period = map(int, " ".join((folder / name).read_text() for name in files).split())
        if quota > 0:  # of version 1 without a limit: -1
            yield quota / period
