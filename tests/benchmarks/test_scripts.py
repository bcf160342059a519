"""Every benchmark still runs; what it measures with so little work means nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

ALONE = {
    "data": ["--sides", "8", "--rounds", "1"],
    "decoding": ["--rounds", "1", "--side", "64"],
    "encode": ["--vae", "tiny", "--videos", "2", "--size", "128", "--seconds", "0.1"],
    "fit_memory": ["--size", "16", "--rounds", "1"],
    "million_records": ["--videos", "2000", "--commits", "2"],
    "feeding": ["--most", "1", "--rounds", "1", "--frames", "2"],
    "overlap": ["--videos", "4", "--rounds", "1"],
    "merge": ["--parts", "2", "--videos", "20"],
    "reading": ["--windows", "64", "--videos", "2"],
    "tiny_files": ["--videos", "20"],
    "waiting_threads": ["--seconds", "0.1", "--rounds", "1", "--busy", "0"],
    "vae": ["--network", "tiny", "--size", "128", "--rounds", "1"],
}

OF_A_CACHE = {
    "training": ["--steps", "2"],
}


def run(name, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_benchmark_runs(name):
    run(name, *ALONE[name])


@pytest.fixture(scope="module")
def cache(make_videos, encode_here, tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("videos"), {f"{number}.mp4": 40 for number in range(8)})
    return encode_here(folder, tmp_path_factory.mktemp("cache") / "l.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_A_CACHE)
def test_benchmark_of_a_cache_runs(name, cache):
    run(name, cache, *OF_A_CACHE[name])
