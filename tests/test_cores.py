"""How many cores a process may use, whatever the machine has."""

import os
import sys

import pytest

from vidlat import cores
from vidlat.__main__ import main
from vidlat.cores import num_cores


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine(num_cores, may_run_on, own groups, files): a machine with these control groups."""

    def make(num_cores=64, may_run_on=64, groups="", files=None):
        monkeypatch.setattr(os, "cpu_count", lambda: num_cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(may_run_on)), raising=False)
        monkeypatch.setattr(cores, "CONTROL_GROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(cores, "OWN_GROUPS", tmp_path / "own")
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
    monkeypatch.setenv("OMP_NUM_THREADS", set_by_user or "")
    if set_by_user is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(sys, "argv", ["vidlat", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("OMP_NUM_THREADS") == expected
