"""Machines that share nothing but a bucket: videos and cache in S3, workers killed, drivers killed."""

import os
import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.pipeline.test_dask_worker import running
from tests.store.object_store import environment, new_bucket, s3_server
from vidlat.store.reader import open_cache
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.verify.cache import verify_cache

SETTINGS = ("--vae", "tiny", "--size", 32, "--device", "cpu")
NUM_VIDEOS = 18


def machine(folder, *command):
    """A process that has a home, a working folder and a temporary folder of its own, ended with the block."""
    for name in ("home", "work", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return running(*command, cwd=folder / "work", HOME=folder / "home", TMPDIR=folder / "tmp")


def line_with(process, pattern):
    """The first line that a process prints that holds a pattern."""
    for line in process.stdout:
        print(line, end="")
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"ended without {pattern}")


def num_committed(address):
    try:
        return len(open_cache(address))
    except Exception:  # it is being made
        return 0


def wait_for(condition):
    while not condition():
        signal.sigtimedwait([], 0.2)


def contents(where):
    cache = open_cache(where)
    latents = {name: cache.read_latents(name) for name in cache.records()}
    return {name: (each.mean.tobytes(), each.std.tobytes()) for name, each in latents.items()}


@pytest.mark.slow
def test_workers_that_share_nothing_but_a_bucket_encode_as_one_machine_does(make_videos, tmp_path):
    pytest.importorskip("moto", reason="needs moto, which is installed with vidlat[dev]")
    videos = make_videos(tmp_path / "videos", {f"{n:02}.mp4": 30 + n for n in range(NUM_VIDEOS)})
    vidlat = (sys.executable, "-m", "vidlat")
    with ExitStack() as stack:
        server = stack.enter_context(s3_server())
        stack.enter_context(environment(server))
        bucket = new_bucket(server).removesuffix("/x.zarr")
        storage = ObjectStorage.at(f"{bucket}/videos")
        for file in videos.iterdir():
            storage.create(file.name, file.read_bytes())
        dask = stack.enter_context(
            machine(
                tmp_path / "scheduler",
                *(Path(sys.executable).parent / "dask", "scheduler", "--host", "127.0.0.1"),
                *("--port", 0, "--dashboard-address", "127.0.0.1:0"),
            )
        )
        address = line_with(dask, r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)")[1]
        workers = [
            stack.enter_context(
                machine(tmp_path / f"worker-{n}", *vidlat, "worker", "--scheduler", address, "--workers", 1)
            )
            for n in range(3)
        ]
        for worker in workers:
            line_with(worker, "scratch in")
        out = f"{bucket}/latents.zarr"
        command = (
            *vidlat, "encode", "--input", f"{bucket}/videos/", "--out", out, *SETTINGS, "--scheduler", address
        )  # fmt: skip
        with machine(tmp_path / "driver-1", *command) as driver:
            wait_for(lambda: num_committed(out) >= 2)
            for child in psutil.Process(workers[0].pid).children(recursive=True):
                child.kill()
            workers[0].kill()
            print("killed a worker")
            wait_for(lambda: num_committed(out) >= 5)
            assert driver.poll() is None
            os.killpg(driver.pid, signal.SIGKILL)
        before = num_committed(out)
        print(f"killed the driver after {before} of {NUM_VIDEOS} commits")
        assert before < NUM_VIDEOS
        with machine(tmp_path / "driver-2", *command) as driver:
            told, _ = driver.communicate()
            print(told)
            assert driver.returncode == 0
        assert list(verify_cache(out)) == []
        with machine(
            tmp_path / "one", *vidlat, "encode", "--input", videos, "--out", tmp_path / "l.zarr", *SETTINGS,
            "--workers", 1,
        ) as alone:  # fmt: skip
            told, _ = alone.communicate()
            assert alone.returncode == 0, told
        assert contents(out) == contents(tmp_path / "l.zarr")
        cache = open_cache(out)
        assert len(cache.records()) == NUM_VIDEOS
        assert all(source.path.startswith(f"{bucket}/videos/") for source in cache.sources().values())
        print(f"{NUM_VIDEOS} of {NUM_VIDEOS} videos, once each, with the latents of one machine")
