"""Reading in processes: the same items, the same cache, and nothing left behind, whatever ends."""

import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pytest

from tests.pipeline.ten_videos import LENGTHS, videos_in
from tests.thorough import some_of
from vidlat.config import LatentSettings
from vidlat.errors import InputError, ReaderDiedError
from vidlat.pipeline import reader_process
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_executor import DaskExecutor
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.executor import InProcessExecutor
from vidlat.pipeline.read_video import Stack, read_in_time
from vidlat.pipeline.reader_process import ReaderProcess, read_apart
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import open_writer

SETTINGS = LatentSettings(size=16)

SERVING = """
import os, threading
from functools import partial
from types import SimpleNamespace
from vidlat.pipeline import deadline, read_video, reader_process

clock = SimpleNamespace(now=0.0)
deadline.GRACE_SECONDS = 0.05

def disturbed(video, *arguments):
    for index, item in enumerate(read_video.read_video(video, *arguments)):
        if video.path.name == NAME and index == 1:
            DISTURBANCE
        yield item

reader_process.read_in_time = partial(read_video.read_in_time, read=disturbed, clock=lambda: clock.now)
reader_process.serve()
"""
"""A process in which the video of one name is disturbed after its first stack."""

HANGS = "clock.now += 1e6; threading.Event().wait()"


def end_all():
    while reader_process._IDLE:
        reader_process._IDLE.pop().close()


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left():
    yield
    end_all()


@pytest.fixture
def disturb(monkeypatch):
    """disturb(name, code): processes that start from now on come to this code in the video of that name."""

    def disturb(name, code):
        program = SERVING.replace("NAME", repr(name)).replace("DISTURBANCE", code)
        monkeypatch.setattr(reader_process, "_PROGRAM", f"exec({program!r})")

    end_all()
    yield disturb
    end_all()


def sources_of(folder):
    return {video.video_id: video for video in discover_videos([str(folder)]).videos}


def read_all_apart(video, settings=SETTINGS, limit_seconds=0.0, is_refused=lambda: False):
    return list(read_apart(video, settings, settings.timing(4), limit_seconds, is_refused))


def read_all_here(video, settings=SETTINGS):
    return list(
        read_in_time(video, settings, settings.timing(4), 0.0, lambda: False, lambda _: pytest.fail("hangs"))
    )


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Stack):
            assert (one.num_frames, one.pixels.dtype) == (other.num_frames, np.float32)
            np.testing.assert_array_equal(one.pixels, other.pixels)
        else:
            assert one == other


@contextmanager
def watching(pid):
    """ended(): whether the process of this number, alive now, ends within a minute."""
    descriptor = os.pidfd_open(pid)
    try:
        yield lambda: bool(select.select([descriptor], [], [], 60)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "changes",
    some_of([{}, {"size": 32, "stretch": 4}, {"stack": 8, "overlap": 4, "fit": "letterbox"}]),
    ids=str,
)
def test_a_process_sends_what_a_thread_reads_to_the_last_bit(videos, changes):
    settings = replace(SETTINGS, **changes)
    for video in sources_of(videos).values():
        expected = read_all_here(video, settings)
        assert_same(read_all_apart(video, settings), expected)
    (reader,) = reader_process._IDLE  # one has read them all
    assert reader.is_idle


def test_cache_is_the_same_whichever_way_frames_are_read(videos, prepare, tmp_path, read_all, undisturbed):
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    job = replace(prepared.job, reads_apart=True)
    with InProcessExecutor() as executor, open_writer(tmp_path / "l.zarr", "test") as writer:
        events = list(run_encode(prepared.plan, job, writer, executor))
    assert reader_process._IDLE
    assert videos_in(events, "failures") == ["broken.mp4"]
    assert read_all(tmp_path / "l.zarr") == undisturbed


def test_a_video_that_is_refused_is_left_and_the_next_one_read(videos):
    longest, other = sources_of(videos)[max(LENGTHS, key=LENGTHS.get)], sources_of(videos)["00.mp4"]
    found = read_all_apart(longest, is_refused=lambda: True)
    assert [type(item) for item in found] == [Stack]
    assert reader_process._IDLE == []
    assert_same(read_all_apart(other), read_all_here(other))


def test_reading_that_is_given_up_ends_its_process(videos):
    items = read_apart(sources_of(videos)["09.mp4"], SETTINGS, SETTINGS.timing(4), 0.0, lambda: False)
    next(items)
    items.close()
    assert reader_process._IDLE == []


def test_a_decoder_that_hangs_is_ended_and_the_others_are_encoded(
    videos, prepare, tmp_path, disturb, read_all, undisturbed
):
    disturb("04.mp4", HANGS)
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1, time_limit_seconds=0.01)
    job = replace(prepared.job, reads_apart=True)
    with InProcessExecutor() as executor, open_writer(tmp_path / "l.zarr", "test") as writer:
        list(run_encode(prepared.plan, job, writer, executor))
    failure = open_cache(tmp_path / "l.zarr").failures()["04.mp4"]
    assert (failure.kind, failure.traceback) == ("time-limit", "")
    assert "within the 0.01 seconds of --time-limit-seconds, after 8 frames; its process" in failure.reason
    assert {**read_all(tmp_path / "l.zarr"), "04.mp4": undisturbed["04.mp4"]} == undisturbed


@pytest.mark.slow
def test_a_decoder_that_ends_its_process_fails_alone(
    videos, prepare, tmp_path, disturb, read_all, undisturbed
):
    disturb("04.mp4", "os._exit(1)")
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    job = replace(prepared.job, reads_apart=True)
    with InProcessExecutor() as executor, open_writer(tmp_path / "l.zarr", "test") as writer:
        list(run_encode(prepared.plan, job, writer, executor))
    failure = open_cache(tmp_path / "l.zarr").failures()["04.mp4"]
    assert failure.kind == "worker-died"
    assert {**read_all(tmp_path / "l.zarr"), "04.mp4": undisturbed["04.mp4"]} == undisturbed


def test_a_process_that_is_killed_is_told_to_the_one_that_waits_for_it(videos):
    reader = ReaderProcess()
    video = sources_of(videos)["09.mp4"]
    with watching(reader.pid) as ended:
        os.kill(reader.pid, signal.SIGKILL)
        assert ended()
    with pytest.raises(ReaderDiedError):
        list(reader.read(video, SETTINGS, SETTINGS.timing(4), 0.0))
    reader.close()


PARENT = """
from vidlat.config import LatentSettings
from vidlat.pipeline import reader_process
from vidlat.pipeline.discover import discover_videos

reader_process._PROGRAM = DISTURBED
(video,) = discover_videos([FOLDER]).videos
settings = LatentSettings(size=16)
reader = reader_process.ReaderProcess()
items = reader.read(video, settings, settings.timing(4), 0.0)
next(items)
print(reader.pid, flush=True)
next(items)
"""


@pytest.mark.slow
def test_a_process_ends_with_its_parent_even_if_its_decoder_hangs(videos, disturb):
    disturb("09.mp4", HANGS)
    folder = str(videos / "09.mp4")
    program = PARENT.replace("DISTURBED", repr(reader_process._PROGRAM)).replace("FOLDER", repr(folder))
    with (
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent,
        watching(int(parent.stdout.readline())) as ended,
    ):
        parent.kill()
        assert ended()


def test_a_process_hears_no_ctrl_c_of_the_group_of_its_parent():
    reader = ReaderProcess()
    assert os.getpgid(reader.pid) == reader.pid != os.getpgrp()
    assert os.getsid(reader.pid) == os.getsid(0)
    reader.close()


def test_a_process_that_cannot_start_ends_the_encode_in_one_line(videos, monkeypatch):
    end_all()
    video = sources_of(videos)["00.mp4"]
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(InputError, match=r"did not start .*No such file"):
        read_all_apart(video)
    monkeypatch.undo()
    monkeypatch.setattr(reader_process, "_PROGRAM", "raise SystemExit(1)")
    with pytest.raises(InputError, match=r"did not start .*has ended"):
        read_all_apart(video)


@pytest.mark.slow
def test_what_a_library_prints_disturbs_no_answer(videos, disturb, capfd):
    disturb("09.mp4", "os.write(1, b'printed'); print('printed')")
    video = sources_of(videos)["09.mp4"]
    assert_same(read_all_apart(video), read_all_here(video))
    assert "printed" in capfd.readouterr().err


@pytest.mark.slow
def test_real_workers_read_in_processes_that_end_with_them(videos, prepare, tmp_path, read_all, undisturbed):
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    job = replace(prepared.job, reads_apart=True)
    with ExitStack() as watched:
        with connect(None, 1, 3) as client:  # three threads, as for a GPU
            with DaskExecutor(client) as executor, open_writer(tmp_path / "l.zarr", "test") as writer:
                list(run_encode(prepared.plan, job, writer, executor))
            (pids,) = client.run(lambda: [reader.pid for reader in reader_process._IDLE]).values()
            ended = [watched.enter_context(watching(pid)) for pid in pids]
        assert 1 <= len(ended) <= 3
        assert all(ends() for ends in ended)
    assert read_all(tmp_path / "l.zarr") == undisturbed


def test_a_process_that_reads_loads_no_torch():
    program = "import sys, vidlat.pipeline.reader_process; print({'torch', 'monai'} & {*sys.modules})"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
