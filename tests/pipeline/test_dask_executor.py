"""The executor on Dask: against a scripted cluster whose workers die on cue, and on real Dask processes."""

import errno
import gc
import io
import os
import re
import shutil
import signal
import sys
import threading
from collections import deque
from functools import partial
from itertools import chain, product
from logging import INFO, WARNING, StreamHandler, getLogger
from pathlib import Path
from queue import Empty
from types import SimpleNamespace

import cloudpickle
import dask
import numpy as np
import pytest
from distributed import CancelledError, KilledWorker, LocalCluster, WorkerPlugin

from tests.pipeline.opened import frames_of, reading
from tests.pipeline.ten_videos import LENGTHS, videos_in
from tests.pipeline.test_out_of_memory import memory_rules
from tests.thorough import some_of
from vidlat.errors import ConfigError, InputError, ReaderDiedError, ScratchError, WeightsError
from vidlat.pipeline import dask_cluster, dask_executor, encode_videos
from vidlat.pipeline.attempts import MAX_DEATHS_ALONE
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.dask_executor import DaskExecutor
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.job import BATCHES_WAITING_PER_WORKER
from vidlat.pipeline.task import encode_batch, replace
from vidlat.resources import memory_bytes
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.opening import open_writer


class ScriptedFuture:
    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments
        self.answer = self.error = None

    def add_done_callback(self, callback):
        self.callback = callback

    def end(self, answer=None, error=None):
        self.answer, self.error = answer, error
        self.callback(self)

    def result(self, timeout):
        assert timeout > 0
        if self.error:
            raise self.error
        return self.answer


class ScriptedCluster:
    """A client of one worker that works in this process, when the driver waits.

    The worker holds every task it was given; it dies, and they with it, where `kills` says so of the task it
    comes to. A new one takes its place under another address.
    """

    def __init__(self, kills=lambda future: False, error=None, num_threads=1):
        self.num_threads = num_threads
        self.kills, self.error = kills, error
        self.tasks, self.events, self.stuck = deque(), deque(), []
        self.num_workers = 1
        self.most_held = 0
        self.status = "running"
        self.dashboard_link = ""

    @property
    def address(self):
        return f"tcp://worker-{self.num_workers}"

    def scheduler_info(self, n_workers):
        return {"workers": {self.address: {"nthreads": self.num_threads}}}

    def subscribe_topic(self, topic, handler):
        pass

    def unsubscribe_topic(self, topic):
        pass

    def cancel(self, futures):
        pass

    def submit(self, function, *arguments, pure, workers=(), priority=0):
        assert not pure
        future = ScriptedFuture(function, arguments)
        if workers and self.address not in workers:
            self.stuck.append(future)  # as on Dask: it waits for a worker that never comes back
        else:
            self.tasks.append(future)
        self.most_held = max(self.most_held, len(self.tasks))
        return future

    def put(self, event):
        self.events.append(event)

    def get(self, timeout):
        assert timeout > 0
        if not self.events:
            self.work()
        if not self.events:
            raise Empty
        return self.events.popleft()

    def work(self):
        if not self.tasks:
            return
        if self.kills(self.tasks[0]):
            worker = SimpleNamespace(address=self.address)
            self.num_workers += 1
            dying, self.tasks = self.tasks, deque()
            for future in dying:
                future.end(error=KilledWorker("task", worker, 0))
            return
        future = self.tasks.popleft()
        try:
            if self.error:
                raise self.error
            if future.function is dask_executor.encode_on_worker:
                future.end((self.address, self.encode(*future.arguments)))
            else:
                future.end(future.function(*future.arguments))
        except Exception as error:
            future.end(error=error)

    def encode(self, videos, job, most_stacks):
        return encode_batch(videos, job, most_stacks=most_stacks, scratch_parent=self.scratch)


def encode_on(cluster, prepared, cache_path):
    cluster.scratch = cache_path.parent
    with DaskExecutor(cluster, queue=cluster) as executor, open_writer(cache_path, "test") as writer:
        return list(run_encode(prepared.plan, prepared.job, writer, executor))


def encode_for_real(prepared, client, **changes):
    with DaskExecutor(client) as executor, prepared.open_writer() as writer:
        return list(run_encode(prepared.plan, replace(prepared.job, **changes), writer, executor))


def encodes(name):
    """Whether a task is to encode the video of this name, alone or with others."""

    def kills(future):
        encodes = future.function is dask_executor.encode_on_worker
        return encodes and name in [source.video_id for source in future.arguments[0]]

    return kills


def press_ctrl_c_in_a_callback():
    """Of what is raised there Python says "Exception ignored", and Dask has such a callback."""

    def press(*_):
        gc.callbacks.remove(press)
        signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(press)
    gc.collect()


def test_ctrl_c_is_not_lost_while_the_cache_is_opened(
    videos, prepare, tmp_path, monkeypatch, signals_as_in_a_terminal
):
    def open_slowly(*arguments):
        press_ctrl_c_in_a_callback()
        return open_writer(*arguments)

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    monkeypatch.setattr(encode_videos, "open_writer", open_slowly)
    cluster = ScriptedCluster()
    cluster.scratch = tmp_path
    with pytest.raises(KeyboardInterrupt):
        list(prepared.run(DaskExecutor(cluster, queue=cluster)))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert list(verify_cache(tmp_path / "l.zarr")) == []


def test_ctrl_c_is_not_lost_in_a_callback_of_the_garbage_collector(
    videos, prepare, tmp_path, signals_as_in_a_terminal
):
    class Pressing(ScriptedCluster):
        def work(self):
            press_ctrl_c_in_a_callback()
            super().work()

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    with pytest.raises(KeyboardInterrupt):
        encode_on(Pressing(), prepared, tmp_path / "l.zarr")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert list(verify_cache(tmp_path / "l.zarr")) == []


@pytest.mark.parametrize("num_threads", [1, 3])
def test_each_worker_holds_one_batch_in_reserve(videos, prepare, tmp_path, num_threads):
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    assert len(prepared.plan.batches) >= 4
    cluster = ScriptedCluster(num_threads=num_threads)
    encode_on(cluster, prepared, tmp_path / "l.zarr")
    assert cluster.most_held == num_threads + BATCHES_WAITING_PER_WORKER


@pytest.mark.parametrize("poison", some_of(["04.mp4", "00.mp4", "09.mp4"]))
def test_video_that_kills_its_worker_fails_alone_and_every_other_video_is_encoded(
    videos, prepare, tmp_path, read_all, undisturbed, poison
):
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    cluster = ScriptedCluster(kills=encodes(poison))
    events = encode_on(cluster, prepared, tmp_path / "l.zarr")
    # With others, alone, and alone with one stack per call instead of three.
    assert cluster.num_workers - 1 == 3 > MAX_DEATHS_ALONE
    assert videos_in(events, "failures") == sorted(["broken.mp4", poison])
    failures = open_cache(tmp_path / "l.zarr").failures()
    assert failures[poison].kind == "worker-died"
    assert "died 2 times" in failures[poison].reason
    assert "out of memory?" in failures[poison].reason
    assert {**read_all(tmp_path / "l.zarr"), poison: undisturbed[poison]} == undisturbed


def test_write_is_retried_when_its_worker_is_gone(videos, prepare, tmp_path, read_all, undisturbed):
    """The worker dies between its encode and the driver's answer: Dask keeps such a write for ever."""

    class DiesWhenDone(ScriptedCluster):
        def encode(self, *arguments):
            encoded = super().encode(*arguments)
            self.num_workers = 2
            return encoded

    cluster = DiesWhenDone()
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    encode_on(cluster, prepared, tmp_path / "l.zarr")
    assert len(cluster.stuck) == 1
    assert read_all(tmp_path / "l.zarr") == undisturbed


def test_result_that_never_arrives_is_another_attempt(videos, prepare, tmp_path, read_all, undisturbed):
    lost = []

    class Forgetful(ScriptedCluster):
        def work(self):
            if self.tasks and self.tasks[0].function is dask_executor.write_batch and not lost:
                lost.append(self.tasks.popleft())
                lost[0].function(*lost[0].arguments)
                lost[0].end(error=TimeoutError())
            else:
                super().work()

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    encode_on(Forgetful(), prepared, tmp_path / "l.zarr")
    assert lost
    assert read_all(tmp_path / "l.zarr") == undisturbed


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (WeightsError("other weights here"), WeightsError),
        (ScratchError("/tmp: cannot keep there"), ScratchError),
        (FileNotFoundError(2, os.strerror(2)), FileNotFoundError),
        (CancelledError("task"), InputError),
    ],
)
def test_error_that_concerns_everything_ends_the_encode_with_it(videos, prepare, tmp_path, error, raised):
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    with pytest.raises(raised):
        encode_on(ScriptedCluster(error=error), prepared, tmp_path / "l.zarr")
    assert len(open_cache(tmp_path / "l.zarr")) == 0


@pytest.mark.parametrize("where", some_of(["after the shards", "before the shards", "after the scratch"]))
def test_write_that_dask_runs_twice_is_another_attempt_into_another_range(
    videos, prepare, tmp_path, read_all, undisturbed, where
):
    again = []

    class Rerunning(ScriptedCluster):
        def work(self):
            task = self.tasks[0] if self.tasks else None
            if task and task.function is dask_executor.write_batch and not again:
                again.append(task)
                encoded, path, start = task.arguments
                if where == "after the scratch":
                    task.function(encoded, path, start)
                elif where == "after the shards":
                    write_shards(path, start, [video.posterior() for video in encoded.videos])
                else:
                    shutil.rmtree(encoded.scratch)
            super().work()

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    encode_on(Rerunning(), prepared, tmp_path / "l.zarr")
    assert again
    assert read_all(tmp_path / "l.zarr") == undisturbed


def test_task_whose_reader_died_is_another_attempt(videos, prepare, tmp_path, read_all, undisturbed):
    attempts = []

    class LosesReader(ScriptedCluster):
        def encode(self, videos, job, most_stacks):
            attempts.append([video.video_id for video in videos])
            if len(attempts) == 1:
                raise ReaderDiedError("the process that read a video has ended")
            return super().encode(videos, job, most_stacks)

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    encode_on(LosesReader(), prepared, tmp_path / "l.zarr")
    assert sorted(chain(*attempts[1:])) == sorted(undisturbed.keys() | {"broken.mp4"})
    assert read_all(tmp_path / "l.zarr") == undisturbed


@pytest.mark.parametrize(("hanging", "num_threads"), some_of(product(["00.mp4", "04.mp4"], [1, 3])))
def test_video_that_hangs_is_recorded_at_once_and_the_others_go_on_as_before(
    videos, prepare, tmp_path, read_all, undisturbed, hanging, num_threads
):
    attempts = []

    def kills(future):
        if not encodes(hanging)(future):
            return False
        attempts.append(future)
        cluster.put(dask_executor.WorkerEnds(hanging, 4, cluster.address))
        return True

    cluster = ScriptedCluster(kills=kills, num_threads=num_threads)
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1, time_limit_seconds=60)
    encode_on(cluster, prepared, tmp_path / "l.zarr")
    assert len(attempts) == 1
    failure = open_cache(tmp_path / "l.zarr").failures()[hanging]
    assert failure.kind == "time-limit"
    assert "within the 60 seconds" in failure.reason
    assert "after 4 frames" in failure.reason
    assert cluster.num_workers == 2
    assert {**read_all(tmp_path / "l.zarr"), hanging: undisturbed[hanging]} == undisturbed


def test_result_of_a_process_that_ends_itself_is_discarded(videos, prepare, tmp_path, read_all, undisturbed):
    """Its decoder came back within the last second: the video is a failure all the same, and only that."""

    class Late(ScriptedCluster):
        def encode(self, videos, job, most_stacks):
            if "04.mp4" in [video.video_id for video in videos]:
                self.put(dask_executor.WorkerEnds("04.mp4", 4, self.address))
            return super().encode(videos, job, most_stacks)

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    events = encode_on(Late(), prepared, tmp_path / "l.zarr")
    assert videos_in(events, "failures") == ["04.mp4", "broken.mp4"]
    assert videos_in(events, "records") == sorted(set(LENGTHS) - {"04.mp4"})
    assert {**read_all(tmp_path / "l.zarr"), "04.mp4": undisturbed["04.mp4"]} == undisturbed


def test_encode_ends_when_no_worker_is_left_and_none_comes(videos, prepare, tmp_path):
    class Deserted(ScriptedCluster):
        num_looks = 0

        def scheduler_info(self, n_workers):
            return {"workers": {}}

        def get(self, timeout):
            self.num_looks += 1
            raise Empty

    prepared, cluster = prepare(videos, tmp_path / "l.zarr", workers=1), Deserted()
    with pytest.raises(InputError, match="no process has been left to encode for 120 s"):
        encode_on(cluster, prepared, tmp_path / "l.zarr")
    assert cluster.num_looks * dask_executor.PATIENCE_SECONDS == dask_executor.ALL_WORKERS_LOST_SECONDS


def test_encode_ends_when_the_connection_to_the_scheduler_closes(videos, prepare, tmp_path):
    class Closed(ScriptedCluster):
        def get(self, timeout):
            self.status = "closed"
            raise Empty

        def unsubscribe_topic(self, topic):
            raise RuntimeError("as Dask's does when its client is closed")

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    with pytest.raises(InputError, match="scheduler went away; finished videos are safe"):
        encode_on(Closed(), prepared, tmp_path / "l.zarr")


@pytest.mark.parametrize("when", ["at the start", "while it waits"])
@pytest.mark.parametrize("answer", [{}, TimeoutError("no answer"), OSError("Timed out")])
def test_encode_ends_when_the_scheduler_no_longer_answers(videos, prepare, tmp_path, answer, when):
    """A killed one leaves a client that tries to connect again, and tells of no workers, not even none."""

    class Killed(ScriptedCluster):
        is_lost = when == "at the start"

        def scheduler_info(self, n_workers):
            if not self.is_lost:
                return super().scheduler_info(n_workers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def get(self, timeout):
            self.is_lost = True
            raise Empty

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    with pytest.raises(InputError, match="scheduler went away; finished videos are safe"):
        encode_on(Killed(), prepared, tmp_path / "l.zarr")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:9", "Timed out"),
        ("tls://127.0.0.1:9", "TLS"),
        ("nonsense://x:1", "unknown address scheme"),
        ("tcp://[::1:9", "invalid address"),
    ],
)
def test_address_where_no_scheduler_answers_is_refused_with_one_line(address, reason):
    before = set(threading.enumerate())
    message = (
        rf"^--scheduler: no Dask scheduler answers at {re.escape(address)}; is it running\? \({reason}.*\)$"
    )
    with pytest.raises(InputError, match=message), connect(address, 1, patience_seconds=1):
        pass
    assert not {thread.name for thread in set(threading.enumerate()) - before if thread.name == "IO loop"}


def test_a_scheduler_that_ends_before_its_client_is_there_is_one_line(monkeypatch):
    async def answers(*_):
        """As one that ends right afterwards."""

    def fails(*_, **__):
        raise OSError("Timed out.\nGone")

    monkeypatch.setattr(dask_cluster, "require_scheduler", answers)
    monkeypatch.setattr(dask_cluster, "Client", fails)
    message = r"^--scheduler: no Dask scheduler answers at tcp://127\.0\.0\.1:9; .*\(Timed out\. Gone\)$"
    with pytest.raises(InputError, match=message), connect("tcp://127.0.0.1:9", 1):
        pass


# From here on, real processes.


@pytest.fixture(scope="module")
def client():
    """A client of a local cluster of two workers, started the way the product does."""
    with connect(None, 2) as client:
        yield client


@pytest.fixture
def dask_log():
    """What Dask logs, at the levels that it has chosen; for tests before the first that uses `client`."""
    log, loggers = io.StringIO(), (getLogger("distributed"), getLogger("distributed.client"))
    handler, before = StreamHandler(log), [logger.level for logger in loggers]
    for logger, level in zip(loggers, (INFO, WARNING), strict=True):
        logger.addHandler(handler)
        logger.setLevel(level)
    yield log
    for logger, level in zip(loggers, before, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


class Poison(WorkerPlugin):
    """A real worker ends as if out of memory when it comes to this video."""

    def setup(self, worker):
        from vidlat.pipeline import dask_executor

        def read_frames(path, warn):
            if path.name == "04.mp4":
                os._exit(1)
            return frames_of(path, warn)

        dask_executor.encode_batch = partial(encode_batch, read=reading(read_frames))


@pytest.mark.slow
def test_video_that_kills_real_workers_fails_alone(
    videos, prepare, tmp_path, undisturbed, read_all, dask_log
):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    with connect(None, 1) as client:
        client.register_plugin(Poison())
        events = encode_for_real(prepared, client)
    assert dask_log.getvalue() == ""
    getLogger("distributed.nanny").info("afterwards")
    assert dask_log.getvalue() == "afterwards\n"
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert videos_in(events, "failures") == ["04.mp4", "broken.mp4"]
    assert {**read_all(tmp_path / "l.zarr"), "04.mp4": undisturbed["04.mp4"]} == undisturbed


@pytest.mark.slow
def test_scheduler_that_goes_away_ends_the_encode_and_finished_videos_stay(
    videos, prepare, tmp_path, read_all, undisturbed, dask_log
):
    prepared, committed = prepare(videos, tmp_path / "l.zarr", workers=1), []
    settings = {"host": "127.0.0.1", "dashboard_address": None, "silence_logs": False}
    elsewhere = LocalCluster(n_workers=1, threads_per_worker=1, **settings)

    def encode():
        with (
            connect(elsewhere.scheduler_address, 1) as client,
            DaskExecutor(client) as executor,
            prepared.open_writer() as writer,
        ):
            for event in run_encode(prepared.plan, prepared.job, writer, executor):
                committed.extend(videos_in([event], "records"))
                if committed:
                    elsewhere.close()

    with pytest.raises(InputError, match="scheduler went away"):
        encode()
    assert "distributed.client" not in dask_log.getvalue()  # of the cluster itself it may tell
    assert read_all(tmp_path / "l.zarr") == {name: undisturbed[name] for name in committed}


def test_local_workers_share_the_memory_and_never_pause(client):
    """They keep what they have freed: a pause, which ends when memory is given back, would never end."""
    assert memory_rules(client) == {(False, memory_bytes() // 2)}
    assert client.cluster.scheduler.allowed_failures == 0
    for nanny in client.cluster.workers.values():
        assert nanny.memory_manager.memory_terminate_fraction == 0.95


def test_real_cluster_encodes_all_videos_and_records_the_failed_ones(
    client, videos, prepare, tmp_path, expected_latents, read_all, undisturbed
):
    prepared = prepare(videos, tmp_path / "l.zarr")
    events = encode_for_real(prepared, client)
    assert videos_in(events, "records") == sorted(LENGTHS)
    assert videos_in(events, "failures") == ["broken.mp4"]
    cache = open_cache(tmp_path / "l.zarr")
    assert list(cache.failures()) == ["broken.mp4"]
    for name in LENGTHS:
        mean, std = expected_latents(videos / name, prepared.job)
        posterior = cache.read_latents(name)
        np.testing.assert_array_equal(posterior.mean, mean)
        np.testing.assert_array_equal(posterior.std, std)
    assert read_all(tmp_path / "l.zarr") == undisturbed
    folders = [Path(worker["local_directory"]) for worker in client.scheduler_info()["workers"].values()]
    assert len(folders) == 2
    assert [path for folder in folders for path in folder.glob("vidlat-*")] == []


def test_weights_error_on_a_real_worker_reaches_the_driver_as_itself(client, videos, prepare, tmp_path):
    prepared = prepare(videos, tmp_path / "l.zarr")
    with pytest.raises(WeightsError, match="other weights here"):
        encode_for_real(prepared, client, vae_hash="f" * 64)


@pytest.mark.parametrize("address", ["foo", "host:8786", "tcp://host", "nonsense://x", "no address"])
def test_invalid_scheduler_address_is_refused(address):
    with pytest.raises(ConfigError, match="looks like tcp://host:8786"), connect(address, 1):
        pass


def test_scheduler_without_workers_is_refused():
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(InputError, match="it has no workers"),
        connect(empty.scheduler_address, 1, patience_seconds=1),
    ):
        pass


def test_worker_that_dies_as_it_starts_ends_in_one_clear_line(monkeypatch):
    def fails(*arguments, **settings):
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(dask_cluster, "LocalCluster", fails)
    message = r"2 processes that encode could not be started \(Nanny failed"
    with pytest.raises(InputError, match=message), connect(None, 2):
        pass


def starting_fails_with(*chain):
    """A LocalCluster that fails as Dask's does: with an error of its own behind which the cause is."""

    def fails(*_, **__):
        try:
            raise chain[0]
        except Exception as cause:
            try:
                raise AttributeError("'NoneType' object has no attribute 'terminate'")  # while it cleans up
            except AttributeError:
                raise RuntimeError("Nanny failed to start.") from cause

    return fails


def test_too_few_open_files_are_told_as_that(monkeypatch):
    full = OSError(errno.EMFILE, "Too many open files")
    monkeypatch.setattr(dask_cluster, "LocalCluster", starting_fails_with(full))
    with (
        pytest.raises(InputError, match=r"\(too many open files\); allow more with `ulimit -n`"),
        connect(None, 2),
    ):
        pass


def test_dask_that_requires_encryption_is_told_as_that(monkeypatch):
    monkeypatch.setattr(dask_cluster, "LocalCluster", starting_fails_with(TypeError("ssl_context")))
    with (
        dask.config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(InputError, match="configuration requires encryption"),
        connect(None, 2),
    ):
        pass


def test_a_machine_that_does_not_reach_itself_is_told_as_that(monkeypatch):
    def unreachable(*_, **__):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(dask_cluster.socket, "create_connection", unreachable)
    monkeypatch.setattr(dask_cluster, "LocalCluster", None)  # not even tried
    message = r"does not reach itself at 127.0.0.1 \(Network is unreachable\)"
    with pytest.raises(InputError, match=message), connect(None, 2):
        pass


def test_ctrl_c_while_processes_start_waits_until_they_can_be_ended(signals_as_in_a_terminal):
    begin, done, finished = threading.Event(), threading.Event(), []

    def take_the_signal():
        begin.wait()
        signal.raise_signal(signal.SIGINT)
        done.set()

    def start_processes():
        with dask_cluster.without_interrupts():
            begin.set()
            done.wait()
            finished.append(True)

    threading.Thread(target=take_the_signal).start()  # before the block, so that it does not block the signal
    with pytest.raises(KeyboardInterrupt):
        start_processes()
    assert finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
