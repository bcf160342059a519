"""The time limit of a video, with a fake clock and on real processes that hang."""

import sys
import threading
from dataclasses import replace
from functools import partial
from threading import Event

import cloudpickle
import numpy as np
import pytest
from distributed import WorkerPlugin

from tests.pipeline.opened import frames_of, reading
from vidlat.config import EncodeConfig
from vidlat.errors import ConfigError, DecodeError
from vidlat.pipeline import deadline
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_executor import DaskExecutor
from vidlat.pipeline.deadline import Deadline, start_deadline
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.task import encode_batch
from vidlat.store.reader import open_cache

LENGTHS = {"a.mp4": 9, "b.mp4": 30, "c.mp4": 8}


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)


@pytest.fixture
def job(prepare, videos, tmp_path):
    return prepare(videos, tmp_path / "latents.zarr", time_limit_seconds=10).job


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self):
        return self.now


def encode(folder, job, scratch, **options):
    encoded = encode_batch(discover_videos([str(folder)]).videos, job, scratch_parent=scratch, **options)
    return {video.record.video_id: video for video in encoded.videos}, encoded.failures


def test_setting_reaches_the_job_and_must_not_be_negative(job):
    assert job.time_limit_seconds == 10
    with pytest.raises(ConfigError, match="time_limit_seconds: got -1; expected at least 0"):
        EncodeConfig(time_limit_seconds=-1)


def test_video_whose_frames_take_too_long_fails_alone(videos, job, tmp_path):
    clock = Clock()

    def read_frames(path, warn):
        for frame in frames_of(path, warn):
            clock.now += 1.0 if path.name == "b.mp4" else 0.1
            yield frame

    undisturbed, _ = encode(videos, job, tmp_path)
    encoded, (failure,) = encode(videos, job, tmp_path, clock=clock, read=reading(read_frames))
    assert (failure.video_id, failure.kind, failure.traceback) == ("b.mp4", "time-limit", "")
    assert "longer than the 10 seconds of --time-limit-seconds" in failure.reason
    assert "; 11 frames" in failure.reason
    assert list(encoded) == ["a.mp4", "c.mp4"]
    for name, video in encoded.items():
        assert video.record == undisturbed[name].record
        np.testing.assert_array_equal(video.posterior().mean, undisturbed[name].posterior().mean)


def test_time_in_the_vae_does_not_count():
    clock = Clock()
    limit = Deadline(10, clock)
    for _ in range(3):
        with limit.paused():
            clock.now += 100
            limit.check()
        clock.now += 3
        limit.check()
    assert limit.elapsed() == 9


def test_time_before_a_video_begins_does_not_count(videos, job, tmp_path):
    clock = Clock()

    def read_frames(path, warn):
        clock.now += 9
        return frames_of(path, warn)

    assert encode(videos, job, tmp_path, clock=clock, read=reading(read_frames))[1] == []
    assert clock.now - Clock.now == 27


def test_without_a_limit_a_video_may_take_for_ever(videos, prepare, tmp_path):
    clock = Clock()

    def read_frames(path, warn):
        clock.now += 1e9
        return frames_of(path, warn)

    job = prepare(videos, tmp_path / "latents.zarr").job
    assert encode(videos, job, tmp_path, clock=clock, read=reading(read_frames))[1] == []


def test_hanging_decoder_is_reported_from_another_thread(videos, job, tmp_path, monkeypatch):
    hung, told, clock = Event(), [], Clock()

    def read_frames(path, warn):
        for index, frame in enumerate(frames_of(path, warn)):
            if path.name == "b.mp4" and index == 6:
                clock.now += 100
                assert hung.wait(60)
            yield frame

    def on_hang(video_id, num_frames):
        told.append((video_id, num_frames))
        hung.set()

    monkeypatch.setattr(deadline, "GRACE_SECONDS", 0.05)
    job, read = replace(job, time_limit_seconds=0.01), reading(read_frames)
    encode(videos, job, tmp_path, on_hang=on_hang, clock=clock, read=read)
    assert told == [("b.mp4", 6)]


def test_slow_vae_does_not_count_as_a_hanging_decoder():
    told, clock = [], Clock()
    limit = Deadline(10, clock)
    limit.num_frames = 4

    class IsOver:
        """Waits by the test's clock: the VAE is at work for a thousand seconds, then the decoder is."""

        def __init__(self):
            self.waits = []

        def wait(self, seconds):
            self.waits.append(seconds)
            clock.now += seconds
            if len(self.waits) == 50:
                vae.__exit__(None, None, None)
            assert len(self.waits) < 60
            return False

    vae = limit.paused()
    vae.__enter__()
    is_over = IsOver()
    limit.watch(told.append, is_over)
    assert told == [4]
    assert is_over.waits == [20.0] * 51
    with pytest.raises(DecodeError, match="; 4 frames"):
        limit.check()


def test_thread_that_watches_ends_with_the_video():
    before = set(threading.enumerate())
    with start_deadline(1000, lambda _: None):
        (watch,) = set(threading.enumerate()) - before
    watch.join(60)
    assert not watch.is_alive()


class Hanging(WorkerPlugin):
    """On a real worker, the decoder of b.mp4 hangs at its seventh frame."""

    def setup(self, worker):
        from vidlat.pipeline import dask_executor, deadline

        def read_frames(path, warn):
            for index, frame in enumerate(frames_of(path, warn)):
                if path.name == "b.mp4" and index == 6:
                    Event().wait()
                yield frame

        deadline.GRACE_SECONDS = 0.0
        dask_executor.encode_batch = partial(encode_batch, read=reading(read_frames))


@pytest.mark.slow
def test_process_whose_decoder_hangs_is_ended_and_the_other_videos_are_encoded(
    videos, prepare, tmp_path, read_all
):
    prepared = prepare(videos, tmp_path / "quiet.zarr", workers=1, time_limit_seconds=10)
    plan = replace(prepared.plan, batches=[tuple(sum(prepared.plan.batches, ()))])
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    caches = {}
    with connect(None, 1) as client:
        for name in ("quiet.zarr", "l.zarr"):
            work = prepare(videos, tmp_path / name, workers=1, time_limit_seconds=10)
            with DaskExecutor(client) as executor, work.open_writer() as writer:
                events = list(run_encode(plan, work.job, writer, executor))
            caches[name] = read_all(tmp_path / name)
            client.register_plugin(Hanging())
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    (failure,) = [failure for event in events for failure in event.failures]
    assert (failure.video_id, failure.kind) == ("b.mp4", "time-limit")
    assert "within the 10 seconds" in failure.reason
    assert "after 6 frames" in failure.reason
    assert open_cache(tmp_path / "l.zarr").failures() == {"b.mp4": replace(failure, sequence=1)}
    del caches["quiet.zarr"]["b.mp4"]
    assert caches["l.zarr"] == caches["quiet.zarr"]
