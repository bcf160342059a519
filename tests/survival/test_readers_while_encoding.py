"""Readers of a cache that grows see only whole videos, all earlier ones, and no error."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

from tests.survival import known_content
from tests.survival.encode_process import wait_until
from vidlat.store.records.log import last_sequence
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.cache import verify_cache

ENOUGH_SECONDS, ENOUGH_COMMITS, NUM_READERS = 60, 1000, 3


@pytest.fixture
def cache_path(tmp_path):
    return known_content.make_empty_cache(tmp_path / "l.zarr")


@contextmanager
def process(*arguments):
    """`known_content` as a process that is killed when the block ends."""
    command = [sys.executable, "-W", "error", "-m", known_content.__name__, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        try:
            yield running
        finally:
            running.kill()


def append_and_kill(path, rng):
    """Let a process append for a while, and kill it at a random moment."""
    with process("append", path, rng.randrange(1 << 30)) as writer:
        enough = last_sequence(local_cache(path)) + rng.randrange(5, 50)
        wait_until(lambda: last_sequence(local_cache(path)) >= enough or writer.poll() is not None)
        for _ in range(rng.randrange(300)):
            os.sched_yield()
        writer.kill()
    assert writer.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_reader_beside_a_writer_that_is_killed_sees_whole_videos(cache_path):
    rng, reader = random.Random(0), known_content.Reader(cache_path, seed=0)
    for _ in range(2):
        with process("append", cache_path, rng.randrange(1 << 30)) as writer:
            enough = last_sequence(local_cache(cache_path)) + 30
            while last_sequence(local_cache(cache_path)) < enough:
                assert writer.poll() is None
                reader.look(with_dataset=False)
    assert len(reader.seen) > 10
    assert max(reader.seen.values()) > 1


@pytest.mark.slow
def test_readers_beside_writers_that_are_killed_again_and_again_see_whole_videos(cache_path, tmp_path):
    began, rng, stop = time.monotonic(), random.Random(0), tmp_path / "stop"
    with ExitStack() as processes:
        readers = [
            processes.enter_context(process("look", cache_path, seed, stop)) for seed in range(NUM_READERS)
        ]
        num_kills = 0
        while (
            time.monotonic() < began + ENOUGH_SECONDS
            or last_sequence(local_cache(cache_path)) < ENOUGH_COMMITS
        ):
            append_and_kill(cache_path, rng)
            num_kills += 1
            assert {reader.poll() for reader in readers} == {None}
        stop.touch()
        num_looks = [int(reader.stdout.read()) for reader in readers]
        assert [reader.wait() for reader in readers] == [0] * NUM_READERS
    assert min(num_looks) > 10
    assert num_kills > 10
    print(f"{last_sequence(local_cache(cache_path))} commits, {num_kills} kills, looks: {num_looks}")
    assert {problem.kind for problem in verify_cache(cache_path)} <= {"leftover"}
