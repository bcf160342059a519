"""What the Slurm batch system grants to this task, by the variables that srun sets; see srun(1)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator


def cores_of_task() -> Iterator[int]:
    """The cores of this task, where the job asked for a number of them."""
    cores = _whole("SLURM_CPUS_PER_TASK")
    if cores:
        yield cores


def memory_of_task() -> Iterator[int]:
    """The bytes of this task, where the job asked for memory: its equal share of those of its node."""
    megabytes = _whole("SLURM_MEM_PER_NODE") or _whole("SLURM_MEM_PER_CPU") * _whole("SLURM_CPUS_ON_NODE")
    if megabytes:
        yield megabytes * 2**20 // _tasks_on_node()


def _tasks_on_node() -> int:
    """Tasks of this job step on this node, 1 outside of a step."""
    counts: list[int] = []
    for count, times in re.findall(
        r"([0-9]+)(?:\(x([0-9]+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    ):
        counts += [int(count)] * int(times or 1)
    node = _whole("SLURM_NODEID")
    return max(counts[node], 1) if node < len(counts) else 1


def _whole(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else 0
