"""Out of memory: smaller VAE calls, in the same task or in a new process, and a warning."""

import os
import pickle
import re
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlat.encode
from tests.pipeline.opened import frames_of, reading
from tests.thorough import some_of
from vidlat.config import EncodeConfig
from vidlat.pipeline import job as job_module
from vidlat.pipeline.attempts import Attempt, Suspects
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_executor import DaskExecutor
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.encode_videos import prepare_encode
from vidlat.pipeline.scratch import open_scratch
from vidlat.pipeline.task import encode_batch
from vidlat.store.reader import open_cache
from vidlat.types import Frame, InputVideo, Source

LENGTHS = {"a.mp4": 5, "b.mp4": 90, "c.mp4": 17}
BATCH = 8

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError(),
]


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)


@pytest.fixture
def job(prepare, videos, tmp_path):
    return prepare(videos, tmp_path / "latents.zarr", batch=BATCH).job


@pytest.fixture
def limit_memory(monkeypatch):
    """limit_memory(fails): the network lacks memory for a call where `fails` says so of its stacks."""

    def limit(fails, error=ERRORS[0]):
        calls, real = [], job_module.load_vae

        def load(*arguments, **options):
            vae = real(*arguments, **options)
            network_encode = vae._autoencoder.network.encode

            def encode(stacks):
                calls.append(len(stacks))
                if fails(stacks):
                    raise error
                return network_encode(stacks)

            vae._autoencoder.network.encode = encode
            return vae

        job_module._load_once.cache_clear()
        monkeypatch.setattr(job_module, "load_vae", load)
        return calls

    yield limit
    job_module._load_once.cache_clear()


def sources_of(folder):
    return discover_videos([str(folder)]).videos


def encode(folder, job, scratch, **options):
    encoded = encode_batch(sources_of(folder), job, scratch_parent=scratch, **options)
    return {video.record.video_id: video for video in encoded.videos}, encoded.failures


def warning(batch):
    return f"out of memory: encoded in batches of {batch} instead of {BATCH}"


@pytest.mark.parametrize("error", some_of(ERRORS), ids=lambda error: type(error).__name__)
def test_call_that_does_not_fit_is_halved_until_it_does_and_stays_so(
    videos, job, tmp_path, limit_memory, expected_latents, error
):
    undisturbed = {name: expected_latents(videos / name, job) for name in LENGTHS}
    calls = limit_memory(lambda stacks: len(stacks) > 3, error)
    encoded, failures = encode(videos, job, tmp_path)
    assert failures == []
    assert calls[:3] == [8, 4, 2]
    assert set(calls[2:]) == {2}
    assert sum(calls[2:]) == 2 + 23 + 5
    assert {video.record.batch for video in encoded.values()} == {2}
    assert {video.record.warnings for video in encoded.values()} == {(warning("2 stacks"),)}
    for name, video in encoded.items():
        mean, std = undisturbed[name]
        np.testing.assert_allclose(video.posterior().mean[:], mean, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(video.posterior().std[:], std, rtol=1e-3, atol=1e-5)


def test_video_that_was_done_before_keeps_its_full_batch(videos, job, tmp_path, limit_memory):
    calls = limit_memory(lambda stacks: len(calls) >= 2 and len(stacks) > 4)
    encoded, _ = encode(videos, job, tmp_path)
    found = {name: (video.record.batch, video.record.warnings) for name, video in encoded.items()}
    smaller = 4, (warning("4 stacks"),)
    assert found == {"a.mp4": (8, ()), "b.mp4": smaller, "c.mp4": smaller}


def test_video_of_which_no_stack_fits_fails_alone_and_is_not_read_on(videos, job, tmp_path, limit_memory):
    num_read = []

    def read_frames(path, warn):
        if path.name != "b.mp4":
            yield from frames_of(path, warn)
            return
        for _ in range(900):
            num_read.append(1)
            yield Frame(pixels=np.full((20, 24), 255, np.uint8), pts_seconds=None)

    limit_memory(lambda stacks: bool((stacks.mean(dim=(1, 2, 3, 4)) > 0.99).any()))
    encoded, (failure,) = encode(videos, job, tmp_path, read=reading(read_frames))
    assert (failure.video_id, failure.kind, failure.traceback) == ("b.mp4", "out-of-memory", "")
    assert "not enough memory on cpu for 1 stack of" in failure.reason
    assert len(num_read) < 100
    assert {name: video.record.warnings for name, video in encoded.items()} == {
        "a.mp4": (warning("2 stacks"),),
        "c.mp4": (warning("1 stack"),),
    }


def test_failed_call_keeps_no_memory_while_the_smaller_one_runs(videos, job, tmp_path, limit_memory):
    activations = weakref.WeakSet()

    def fails(stacks):
        assert not list(activations)
        activation = torch.zeros(7)
        activations.add(activation)
        if len(stacks) > 1:
            raise torch.OutOfMemoryError  # its traceback holds this frame, and so the activation
        return False

    limit_memory(fails)
    assert encode(videos, job, tmp_path)[1] == []


def test_attempt_with_fewer_stacks_says_so(videos, job, tmp_path, limit_memory):
    calls = limit_memory(lambda stacks: False)
    encoded, _ = encode(videos, job, tmp_path, most_stacks=4)
    assert set(calls) == {4}
    assert {video.record.warnings for video in encoded.values()} == {(warning("4 stacks"),)}
    assert {video.record.batch for video in encoded.values()} == {4}


def source(name):
    return InputVideo(video_id=name, source=Source(name, 1, 1))


def test_video_whose_worker_dies_gets_half_the_stacks_each_time_that_it_was_alone():
    suspects, tried = Suspects(8), []
    assert suspects.add(Attempt((source("a"), source("b")), 8)) == []
    assert len(suspects) == 2
    failures = []
    while suspects:
        attempt = suspects.next()
        tried.append((attempt.videos[0].video_id, attempt.most_stacks))
        if attempt.videos[0].video_id == "a":
            failures += suspects.add(attempt)
    assert [stacks for name, stacks in tried if name == "a"] == [8, 4, 2, 1]
    assert [stacks for name, stacks in tried if name == "b"] == [8]
    (failure,) = failures
    assert (failure.video_id, failure.kind) == ("a", "worker-died")
    assert failure.reason.startswith(
        "the process that encoded it, and nothing else, died 4 times, at last with one stack per call"
    )
    assert "out of memory?" in failure.reason


def test_once_less_memory_has_helped_the_next_suspect_begins_with_it():
    suspects = Suspects(8)
    suspects.add(Attempt((source("a"), source("b"), source("c")), 8))
    suspects.add(suspects.next())
    suspects.clear(suspects.next())  # b lives with 8: nothing is known yet
    assert suspects.next().most_stacks == 8
    suspects.clear(suspects.next())  # a, with 4
    suspects.add(Attempt((source("d"),), 8))
    assert suspects.next().most_stacks == 4


def test_of_a_long_video_only_what_is_read_counts_as_memory_of_the_process(tmp_path):
    """A worker whose resident memory passes its limit is ended: mapped files count."""
    shape = 512, 4, 64, 64
    for name in ("mean", "std"):
        np.zeros(shape, np.float16).tofile(tmp_path / name)
    num_bytes = np.zeros(shape, np.float16).nbytes
    posterior = open_scratch(tmp_path / "mean", tmp_path / "std", shape)
    before = mapped_bytes()
    for first in range(0, 512, 64):
        posterior.mean[:, first : first + 64].sum()
    assert mapped_bytes() - before < num_bytes // 8
    stays = np.memmap(tmp_path / "mean", np.float16, "r", shape=shape)
    stays.sum()
    assert mapped_bytes() - before >= num_bytes  # what a plain map does: the measure can fail


def mapped_bytes():
    """On a disk, or in memory that looks like one."""
    status = Path("/proc/self/status").read_text()
    return sum(1024 * int(kib) for kib in re.findall(r"Rss(?:File|Shmem):\s+(\d+)", status))


TINY = Path(vidlat.encode.__file__).with_name("tiny.safetensors")
SIZE = 256


@pytest.fixture
def large_job(make_videos, tmp_path):
    """The work on one video, in calls of 16 stacks that take over a GB more than the process itself."""
    folder = make_videos(tmp_path / "v", {"a.mp4": 66}, height=SIZE, width=SIZE)
    settings = EncodeConfig(vae=str(TINY), stack=4, size=SIZE, batch=16, workers=1, device="cpu")
    prepared = prepare_encode([str(folder)], settings, tmp_path / "l.zarr")
    return replace(prepared, job=replace(prepared.job, num_threads=1))


MEMORY_LIMIT = 1_500_000_000
"""Of a worker, which is ended at 95 % of it. With calls of 8 stacks it takes 1.2 GB, with calls of 16 1.6."""


@pytest.mark.slow
def test_worker_that_is_ended_for_its_memory_is_followed_by_one_with_smaller_calls(
    large_job, tmp_path, monkeypatch
):
    monkeypatch.setattr("vidlat.pipeline.dask_cluster.memory_bytes", lambda: MEMORY_LIMIT)
    with (
        connect(None, 1) as client,
        DaskExecutor(client) as executor,
        large_job.open_writer() as writer,
    ):
        before = worker_pids(client)
        events = list(run_encode(large_job.plan, large_job.job, writer, executor))
        assert worker_pids(client) != before
        assert memory_rules(client) == {(False, MEMORY_LIMIT)}  # of the new process too
    (record,) = [record for event in events for record in event.records]
    assert record.batch == 8
    assert record.warnings == ("out of memory: encoded in batches of 8 stacks instead of 16",)
    cache = open_cache(tmp_path / "l.zarr")
    assert cache.failures() == {}
    found = cache.read_latents("a.mp4")
    (undisturbed,) = encode_batch(large_job.plan.batches[0], large_job.job, scratch_parent=tmp_path).videos
    expected = undisturbed.posterior()
    np.testing.assert_allclose(found.mean, expected.mean[:], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.std, expected.std[:], rtol=1e-3, atol=1e-5)


def memory_rules(client):
    """When a worker pauses, and its memory limit."""

    def rules(dask_worker):
        manager = dask_worker.memory_manager
        return manager.memory_pause_fraction, manager.memory_limit

    return set(client.run(rules).values())


def worker_pids(client):
    return set(client.run(os.getpid).values())


REAL_LIMIT = """
import pickle, resource, sys
from pathlib import Path
from vidlat.pipeline import task

batch, job, scratch = pickle.loads(Path(sys.argv[1]).read_bytes())
task.encode_batch(batch, job, most_stacks=1, scratch_parent=scratch)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
encoded = task.encode_batch(batch, job, scratch_parent=scratch)
print([(video.record.batch, *video.record.warnings) for video in encoded.videos], encoded.failures)
"""


@pytest.mark.slow
def test_allocation_that_the_system_refuses_halves_the_calls(large_job, tmp_path):
    work = large_job.plan.batches[0], large_job.job, tmp_path
    (tmp_path / "work").write_bytes(pickle.dumps(work))
    answer = subprocess.run(
        [sys.executable, "-c", REAL_LIMIT, tmp_path / "work", "900000000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stderr == ""
    # How much fits depends on how the freed memory lies: 8 stacks, or 4.
    found = re.fullmatch(r"\[\((\d), '(.*)'\)\] \[\]", answer.stdout.strip())
    assert found
    assert int(found[1]) in (8, 4, 2)
    assert found[2] == f"out of memory: encoded in batches of {found[1]} stacks instead of 16"
