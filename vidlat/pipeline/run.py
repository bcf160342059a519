"""Running an encode plan on Dask: the only file that knows it.

For each batch: a worker encodes it to scratch, the driver reserves shards, the same worker writes them, the
driver commits. A batch that fails on the way leaves at most unused shards, never half a video.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from queue import Empty, SimpleQueue

import dask
import torch
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, get_worker

from vidlat.errors import InputError
from vidlat.pipeline.plan import Batch, EncodePlan
from vidlat.pipeline.task import EncodedBatch, EncodeJob, encode_batch, write_batch
from vidlat.store.writer import CacheWriter
from vidlat.types import FailureRecord, VideoRecord

BATCHES_IN_FLIGHT_A_WORKER = 2
"""One being encoded and one waiting: more would only lose more to a kill."""

MAX_ATTEMPTS = 2
"""A video whose worker dies this often is a failure: it would take every other worker along."""

PATIENCE_SECONDS = 5.0
"""How long nothing may happen before the driver looks whether a worker it waits for is still there."""

RESULT_SECONDS = 60.0
"""How long a finished task's small result may take: a worker that died just then never sends it."""

WORKERS_SECONDS = 30
"""How long a scheduler that was asked for may be without a worker."""

_PROGRESS_TOPIC = "vidlat-frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeProgress:
    """What happened: frames encoded (padding included, not yet safe), videos committed or failed."""

    num_frames: int = 0
    records: tuple[VideoRecord, ...] = ()
    failures: tuple[FailureRecord, ...] = ()


def choose_num_workers(device: str) -> int:
    """One process a GPU; on a CPU one for four cores, but two where there are two: decoding overlaps."""
    if device.startswith("cuda"):
        return 1 if ":" in device else torch.cuda.device_count()
    cores = os.cpu_count() or 1
    return max(min(2, cores), cores // 4)


@contextmanager
def connect(scheduler: str | None, num_workers: int) -> Iterator[Client]:
    """A client of the Dask scheduler at an address, or of a local cluster that lives as long as the block.

    Raises InputError where no scheduler answers at the address.
    """
    if scheduler:
        if not re.fullmatch(r"\w+://.+:\d+", scheduler):
            raise InputError(f"--scheduler {scheduler}: no address; it looks like tcp://host:8786")
        try:
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"--scheduler {scheduler}: no Dask scheduler answers there; is it running?"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=WORKERS_SECONDS)
            except TimeoutError as error:
                raise InputError(f"--scheduler {scheduler}: it has no workers; start some") from error
            yield client
        return
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.comm.timeouts.connect": "60s",
    }
    with dask.config.set(settings), _without_interrupts():
        cluster = LocalCluster(
            n_workers=num_workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: another cluster may hold Dask's own
            silence_logs=logging.CRITICAL,
        )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def run_encode(
    plan: EncodePlan, job: EncodeJob, writer: CacheWriter, client: Client
) -> Iterator[EncodeProgress]:
    """Encode every batch of a plan into a cache, yielding what happens as it happens.

    On return every video of the plan is either committed or recorded as a failure.
    """
    yield from _Encode(job, writer, client).run(plan)


@dataclass(frozen=True, slots=True)
class _Step:
    """What a running future does: encode a batch, or write what was encoded on the worker at `address`."""

    batch: Batch
    encoded: EncodedBatch | None = None
    address: str | None = None


class _Encode:
    def __init__(self, job: EncodeJob, writer: CacheWriter, client: Client) -> None:
        self.job = job
        self.writer = writer
        # Workers may run in another folder, or on another machine with the same file system.
        self.cache_path = writer.path.absolute()
        self.client = client
        self.waiting: deque[Batch] = deque()
        self.suspects: deque[Batch] = deque()
        self.running: dict[Future, _Step] = {}
        self.done: SimpleQueue[Future | int] = SimpleQueue()
        self.attempts: dict[str, int] = {}

    def run(self, plan: EncodePlan) -> Iterator[EncodeProgress]:
        self.waiting.extend(plan.batches)
        self.client.subscribe_topic(_PROGRESS_TOPIC, lambda event: self.done.put(event[1]))
        try:
            while self.waiting or self.suspects or self.running:
                self._submit()
                try:
                    event = self.done.get(timeout=PATIENCE_SECONDS)
                except Empty:
                    yield from self._give_up_lost_writes()
                    continue
                if isinstance(event, int):
                    yield EncodeProgress(num_frames=event)
                elif event in self.running:
                    yield from self._finish(event)
        finally:
            self.client.unsubscribe_topic(_PROGRESS_TOPIC)
            self.client.cancel(list(self.running))

    def _workers(self) -> set[str]:
        return set(self.client.scheduler_info(n_workers=-1)["workers"])

    def _submit(self) -> None:
        num_running = BATCHES_IN_FLIGHT_A_WORKER * max(1, len(self._workers()))
        while self.waiting and len(self.running) < num_running:
            self._start_encoding(self.waiting.popleft())
        # A worker that dies takes all of its tasks along: only a suspect that runs alone shows its guilt.
        if self.suspects and not self.running:
            self._start_encoding(self.suspects.popleft())

    def _start_encoding(self, batch: Batch) -> None:
        future = self.client.submit(_encode_on_worker, batch, self.job, pure=False)
        self._watch(future, _Step(batch))

    def _watch(self, future: Future, step: _Step) -> None:
        self.running[future] = step
        future.add_done_callback(self.done.put)

    def _finish(self, future: Future) -> Iterator[EncodeProgress]:
        """Take a finished future one step further: to its write, its commit, or another attempt.

        What a task raises concerns the whole encode (a full disk, wrong weights) and ends it.
        """
        step = self.running.pop(future)
        try:
            answer = future.result(timeout=RESULT_SECONDS)
        except (KilledWorker, TimeoutError):
            yield from self._retry(step.batch)
            return
        except CancelledError as error:
            raise InputError(
                "the Dask scheduler went away; what was finished is safe, the same command goes on from there"
            ) from error
        if step.encoded is None:
            yield from self._start_writing(step.batch, *answer)
        else:
            self.writer.commit(answer)
            yield EncodeProgress(records=tuple(answer))

    def _start_writing(self, batch: Batch, address: str, encoded: EncodedBatch) -> Iterator[EncodeProgress]:
        if encoded.failures:
            self.writer.record_failures(encoded.failures)
            yield EncodeProgress(failures=tuple(encoded.failures))
        if encoded.videos:
            start = self.writer.reserve(self.writer.schema.num_shards(encoded.num_latent_frames))
            # The scratch files are where the batch was encoded.
            write = self.client.submit(
                write_batch, encoded, self.cache_path, start, pure=False, workers=[address], priority=1
            )
            failed = {failure.video_id for failure in encoded.failures}
            left = tuple(source for source in batch if source.video_id not in failed)
            self._watch(write, _Step(left, encoded, address))

    def _give_up_lost_writes(self) -> Iterator[EncodeProgress]:
        """Retry what was to be written by a worker that is gone: Dask would wait for it for ever."""
        workers = self._workers()
        for future, step in list(self.running.items()):
            if step.address and step.address not in workers:
                del self.running[future]
                yield from self._retry(step.batch)

    def _retry(self, batch: Batch) -> Iterator[EncodeProgress]:
        """Give the videos of a batch whose worker died another attempt each, alone."""
        failures = []
        for source in batch:
            self.attempts[source.video_id] = self.attempts.get(source.video_id, 0) + 1
            if self.attempts[source.video_id] < MAX_ATTEMPTS:
                self.suspects.append((source,))
                continue
            failures.append(
                FailureRecord(
                    video_id=source.video_id,
                    source_path=str(source.path),
                    source_num_bytes=source.num_bytes,
                    source_mtime_ns=source.mtime_ns,
                    kind="worker-died",
                    reason=f"the process that encoded it died {MAX_ATTEMPTS} times (out of memory?)",
                )
            )
        if failures:
            self.writer.record_failures(failures)
            yield EncodeProgress(failures=tuple(failures))


def _encode_on_worker(batch: Batch, job: EncodeJob) -> tuple[str, EncodedBatch]:
    worker = get_worker()
    # Dask removes a worker's folder when it ends, however it ends.
    scratch = Path(worker.local_directory)
    report = partial(worker.log_event, _PROGRESS_TOPIC)
    device = device_of_worker(job.device, worker.name, torch.cuda.device_count())
    job = replace(job, device=device)
    return worker.address, encode_batch(batch, job, report, scratch_parent=scratch)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Threads and processes started in this block leave Ctrl-C to the driver, which ends them in order.

    They inherit the blocked signal; the driver receives one that came meanwhile at the end of the block.
    """
    # Its start unblocks the signal in the thread that first needs it, which would be inside the block.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def device_of_worker(device: str, worker_name: object, num_gpus: int) -> str:
    """Spread numbered workers over the GPUs where the device names none in particular."""
    if device in ("auto", "cuda") and num_gpus and isinstance(worker_name, int):
        return f"cuda:{worker_name % num_gpus}"
    return device
