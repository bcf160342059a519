"""How many cores a process may use, whatever the machine has."""

import os
import sys

import pytest

from vidlat import resources
from vidlat.__main__ import main
from vidlat.resources import LIMITED, are_threads_given, memory_bytes, num_cores


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine(num_cores, may_run_on, own groups, files): a machine with these control groups."""

    def make(num_cores=64, may_run_on=64, groups="", files=None):
        set_slurm(monkeypatch, {})
        monkeypatch.setattr(os, "cpu_count", lambda: num_cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(may_run_on)), raising=False)
        monkeypatch.setattr(resources, "CONTROL_GROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(resources, "OWN_GROUPS", tmp_path / "own")
        (tmp_path / "own").write_text(groups)
        for name, text in (files or {}).items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return make


QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("expected", "groups", "files"),
    [
        (64, "", {}),
        (64, "0::/\n", {"cpu.max": "max 100000"}),
        (2, "0::/\n", {"cpu.max": "200000 100000"}),  # a container
        (2, "0::/\n", {"cpu.max": "150000 100000"}),
        (1, "0::/\n", {"cpu.max": "10000 100000"}),
        (64, "0::/\n", {"cpu.max": "9900000 100000"}),
        (64, "0::/\n", {"cpu.max": "nonsense"}),
        # A batch system: limits of a job and of all jobs.
        (3, "0::/jobs/7\n", {"jobs/7/cpu.max": "max 100000", "jobs/cpu.max": "300000 100000"}),
        (1, "0::/jobs/7\n", {"jobs/7/cpu.max": "50000 50000", "jobs/cpu.max": "300000 100000"}),
        # Version 1. The path of a container is that outside, its folder the root inside.
        (4, "3:cpu,cpuacct:/docker/x\n1:memory:/y\n", {f"cpu/{QUOTA}": "200000", f"cpu/{PERIOD}": "50000"}),
        (5, "3:cpu:/a:b\n0::/\n", {f"cpu/a:b/{QUOTA}": "500000", f"cpu/a:b/{PERIOD}": "100000"}),
        (64, "3:cpu:/\n", {f"cpu/{QUOTA}": "-1", f"cpu/{PERIOD}": "100000"}),
        (64, "3:memory:/\n", {f"cpu/{QUOTA}": "200000", f"cpu/{PERIOD}": "50000"}),
    ],
)
def test_cores_are_those_that_control_groups_grant(machine, expected, groups, files):
    machine(groups=groups, files=files)
    assert num_cores() == expected


def test_cores_are_those_of_the_affinity(machine):
    machine(may_run_on=6, groups="0::/\n", files={"cpu.max": "800000 100000"})
    assert num_cores() == 6


def test_without_control_groups_or_affinity_all_cores_count(machine, monkeypatch, tmp_path):
    machine(num_cores=7)
    (tmp_path / "own").unlink()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert num_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert num_cores() == 1


@pytest.mark.parametrize(
    ("set_by_user", "may_run_on", "expected"), [("5", 3, "5"), (None, 3, "3"), (None, 64, None)]
)
def test_a_command_starts_no_more_threads_than_it_has_cores(
    machine, monkeypatch, set_by_user, may_run_on, expected
):
    machine(may_run_on=may_run_on)
    monkeypatch.setenv(LIMITED, "")  # so that it is as before afterwards
    monkeypatch.delenv(LIMITED)
    monkeypatch.setenv("OMP_NUM_THREADS", set_by_user or "")
    if set_by_user is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(sys, "argv", ["vidlat", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("OMP_NUM_THREADS") == expected
    assert are_threads_given() == (set_by_user is not None)


SLURM = ("CPUS_PER_TASK", "MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE", "STEP_TASKS_PER_NODE", "NODEID")
MB, GB = 2**20, 2**30
PHYSICAL = 256 * GB


@pytest.fixture
def memory(machine, monkeypatch):
    """memory(groups, files, **of Slurm): the bytes that a process may use on a machine of 256 GB."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": PHYSICAL // 4096}.get)

    def memory(groups="", files=None, **variables):
        machine(groups=groups, files=files)
        set_slurm(monkeypatch, variables)
        return memory_bytes()

    return memory


def set_slurm(monkeypatch, variables):
    for name in SLURM:
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


@pytest.mark.parametrize(
    ("expected", "groups", "files"),
    [
        (PHYSICAL, "", {}),
        (PHYSICAL, "0::/\n", {"memory.max": "max", "memory.high": "max"}),
        (4 * GB, "0::/\n", {"memory.max": str(4 * GB)}),
        (3 * GB, "0::/\n", {"memory.max": str(4 * GB), "memory.high": str(3 * GB)}),
        # The job's, where its step has no limit.
        (8 * GB, "0::/job_7/step_0\n", {"job_7/step_0/memory.max": "max", "job_7/memory.max": str(8 * GB)}),
        (2 * GB, "4:memory:/slurm/job_7\n", {"memory/slurm/job_7/memory.limit_in_bytes": str(2 * GB)}),
        (PHYSICAL, "4:memory:/\n", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}),
        (PHYSICAL, "4:cpu:/\n", {"memory/memory.limit_in_bytes": str(2 * GB)}),
    ],
)
def test_memory_is_what_control_groups_grant(memory, expected, groups, files):
    assert memory(groups, files) == expected


@pytest.mark.parametrize(
    ("expected", "variables"),
    [
        (32_000 * MB, {"MEM_PER_NODE": 32_000}),
        (8_000 * MB, {"MEM_PER_NODE": 32_000, "STEP_TASKS_PER_NODE": "4(x2),3", "NODEID": 1}),
        (32_000 * MB // 3, {"MEM_PER_NODE": 32_000, "STEP_TASKS_PER_NODE": "4(x2),3", "NODEID": 2}),
        (16_000 * MB, {"MEM_PER_CPU": 4_000, "CPUS_ON_NODE": 8, "STEP_TASKS_PER_NODE": "2", "NODEID": 0}),
        (PHYSICAL, {"MEM_PER_NODE": 0}),  # all of the node
        (PHYSICAL, {"MEM_PER_NODE": "nonsense"}),
        (PHYSICAL, {"MEM_PER_CPU": 4_000}),
        (32_000 * MB, {"MEM_PER_NODE": 32_000, "STEP_TASKS_PER_NODE": "", "NODEID": 3}),
    ],
)
def test_memory_is_the_share_of_a_task_that_slurm_grants(memory, expected, variables):
    assert memory(**variables) == expected


def test_cores_are_those_that_slurm_grants_a_task(machine, monkeypatch):
    machine(may_run_on=16)
    set_slurm(monkeypatch, {"CPUS_PER_TASK": 4})
    assert num_cores() == 4
