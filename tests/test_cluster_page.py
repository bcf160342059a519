"""The scripts of docs/how-to/cluster.md run as they stand there, with stand-ins for what Slurm does."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import code_blocks
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache

DRIVER, ARRAY, MERGE = code_blocks("docs/how-to/cluster.md", "bash")

SRUN = """#!/bin/bash
# Starts the command once for each node, as srun does for --ntasks-per-node=1.
for node in 0 1; do
    SLURM_NODEID=$node SLURM_STEP_TASKS_PER_NODE="1(x2)" "$@" &
done
wait
"""

NAMES = [f"{patient}/{number}.mp4" for patient in ("p1", "p2") for number in range(3)]


@pytest.fixture
def job(make_videos, tmp_path):
    """job(script, **variables): run a script as a job of Slurm, in a folder with videos/."""
    make_videos(tmp_path / "videos", dict.fromkeys(NAMES, 9))
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "srun").write_text(SRUN)
    own = Path(sys.executable).parent
    (bin_folder / "vidlat").write_text(f'#!/bin/bash\nexec {sys.executable} -m vidlat "$@"\n')
    for file in bin_folder.iterdir():
        file.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(bin_folder), str(own), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TMPDIR": str(tmp_path / "tmp"),
        "OMP_NUM_THREADS": "1",
    }

    def run(script, **variables):
        finished = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment | {name: str(value) for name, value in variables.items()},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    return run


def test_every_script_asks_slurm_for_what_exists():
    known = {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-task", "mem", "time", "array"}
    for script in (DRIVER, ARRAY, MERGE):
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
        options = dict(re.findall(r"#SBATCH --([a-z-]+)=(\S+)", script))
        assert options
        assert options.keys() <= known


@pytest.mark.slow
def test_a_driver_and_workers_encode_into_one_cache(job, tmp_path):
    said = job(DRIVER.replace("--port 0", "--port 0 --host 127.0.0.1"), SLURM_JOB_ID=7, SLURM_CPUS_PER_TASK=1)
    assert f"{len(NAMES)} videos" in said
    assert said.count("for tcp://127.0.0.1:") == 2
    assert set(open_cache(tmp_path / "latents.zarr").records()) == set(NAMES)
    assert list(verify_cache(tmp_path / "latents.zarr")) == []


@pytest.mark.slow
def test_an_array_of_jobs_and_a_merge_give_one_cache(job, tmp_path):
    last = int(re.search(r"--array=1-([0-9]+)", ARRAY)[1])
    assert f"/{last} " in ARRAY
    script = ARRAY.replace(f"/{last} ", "/3 ")
    for number in (1, 2, 3):
        job(script, SLURM_ARRAY_TASK_ID=number)
    said = job(MERGE)
    assert "no problem" in said.lower()
    assert set(open_cache(tmp_path / "latents.zarr").records()) == set(NAMES)
    shutil.rmtree(tmp_path / "parts")
    assert list(verify_cache(tmp_path / "latents.zarr")) == []
