"""The executor that runs tasks on the workers of a Dask cluster, and notices when one of them is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

import torch
from distributed import CancelledError, Client, Future, KilledWorker, Worker, get_worker

from vidlat.errors import InputError, ReaderDiedError, ShardExistsError
from vidlat.interrupts import stopping
from vidlat.pipeline.dask_cluster import connect
from vidlat.pipeline.executor import (
    BatchEncoded,
    BatchWritten,
    DecoderHangs,
    Event,
    FramesEncoded,
    Task,
    TaskLost,
)
from vidlat.pipeline.job import BATCHES_WAITING_PER_WORKER, EncodeJob, device_of_worker
from vidlat.pipeline.plan import Batch
from vidlat.pipeline.task import EncodedBatch, encode_batch, write_batch

PATIENCE_SECONDS = 5.0
"""How long nothing may happen before the executor checks that its workers are still there."""

RESULT_SECONDS = 20.0
"""How long the small result of a finished task may take; a worker that died just then never sends it."""

ALL_WORKERS_LOST_SECONDS = 120.0
"""How long to wait for new workers when the last one is gone."""

FAREWELL_SECONDS = 1.0
"""How long a process that ends itself waits for its last message to be sent."""

_FRAMES_TOPIC, _HANG_TOPIC = "vidlat-frames", "vidlat-hang"

_RESUME = "finished videos are safe; run the same command again to continue"
_SCHEDULER_GONE = f"the Dask scheduler went away; {_RESUME}"


@dataclass(frozen=True, slots=True)
class WorkerEnds:
    """What a worker says before it ends itself because the decoder of a video hangs."""

    video_id: str
    num_frames: int
    address: str


@dataclass(frozen=True, slots=True)
class _Step:
    """What a future computes. address: the only worker that can; empty for any."""

    task: Task
    address: str = ""


class _Interrupt:
    """Ctrl-C was pressed."""


class DaskExecutor:
    """Runs tasks on Dask workers; a batch is written by the worker that encoded it, which holds its scratch.

    queue: receives finished futures, the messages of workers, and Ctrl-C, which `next_event` raises. Raised
    wherever it strikes it would be lost in one of Dask's callbacks, or leave Dask unable to close.
    """

    def __init__(self, client: Client, queue: SimpleQueue[Any] | None = None) -> None:
        self.client = client
        self._queue: SimpleQueue[Any] = SimpleQueue() if queue is None else queue
        self._running: dict[Future, _Step] = {}
        self._encoded_by: dict[Task, str] = {}
        self._ended: set[str] = set()
        self._seconds_without_workers = 0.0
        self._at_exit = ExitStack()

    def __enter__(self) -> Self:
        self._at_exit.enter_context(stopping(lambda: self._queue.put(_Interrupt()), [signal.SIGINT]))
        self.client.subscribe_topic(_FRAMES_TOPIC, lambda event: self._queue.put(FramesEncoded(event[1])))
        self.client.subscribe_topic(_HANG_TOPIC, lambda event: self._queue.put(WorkerEnds(*event[1])))
        return self

    def __exit__(self, *_: object) -> None:
        with self._at_exit:
            if self.client.status == "running":
                self.client.unsubscribe_topic(_FRAMES_TOPIC)
                self.client.unsubscribe_topic(_HANG_TOPIC)
                self.client.cancel(list(self._running))
            self._running.clear()

    @property
    def dashboard(self) -> str:
        """Dask's own page."""
        return str(self.client.dashboard_link or "")

    def capacity(self) -> int:
        """One batch per thread of each worker, and one more per worker."""
        return max(1, sum(threads + BATCHES_WAITING_PER_WORKER for threads in self._workers().values()))

    def encode(self, task: Task, videos: Batch, job: EncodeJob, most_stacks: int) -> None:
        self._submit(_Step(task), encode_on_worker, videos, job, most_stacks)

    def write(self, task: Task, batch: EncodedBatch, cache: str, start: int) -> None:
        address = self._encoded_by.pop(task)
        self._submit(_Step(task, address), write_batch, batch, cache, start, workers=[address], priority=1)

    def next_event(self) -> Event | None:
        """Wait for a result or a message; None after PATIENCE_SECONDS without one.

        Raises KeyboardInterrupt after a Ctrl-C, and InputError where the scheduler is gone, or all workers
        have been for ALL_WORKERS_LOST_SECONDS.
        """
        try:
            found = self._queue.get(timeout=PATIENCE_SECONDS)
        except Empty:
            self._check_workers()
            return None
        if isinstance(found, FramesEncoded | TaskLost):
            return found
        if isinstance(found, _Interrupt):
            raise KeyboardInterrupt
        if isinstance(found, WorkerEnds):
            self._ended.add(found.address)
            return DecoderHangs(found.video_id, found.num_frames)
        step = self._running.pop(found, None)
        return self._result_of(found, step) if step else None

    def _workers(self) -> dict[str, int]:
        """The number of threads of each worker, by address; InputError where no scheduler answers."""
        try:
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
        except (KeyError, OSError, TimeoutError) as error:  # a lost scheduler has no workers, not none
            raise InputError(_SCHEDULER_GONE) from error
        return {address: worker["nthreads"] for address, worker in workers.items()}

    def _submit(self, step: _Step, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        future = self.client.submit(function, *arguments, pure=False, **options)
        self._running[future] = step
        future.add_done_callback(self._queue.put)

    def _result_of(self, future: Future, step: _Step) -> Event:
        try:
            result = future.result(timeout=RESULT_SECONDS)
        except (KilledWorker, TimeoutError) as error:
            died = getattr(error, "last_worker", None)
            return TaskLost(step.task, is_explained=died is not None and died.address in self._ended)
        except ReaderDiedError:
            return TaskLost(step.task)
        except CancelledError as error:
            raise InputError(_SCHEDULER_GONE) from error
        except Exception as error:
            if step.address and isinstance(error, ShardExistsError | FileNotFoundError):
                # Dask lost the result with its worker and ran the write again, on what the first had left.
                return TaskLost(step.task)
            raise
        if step.address:
            return BatchWritten(step.task, result)
        self._encoded_by[step.task], batch = result
        return BatchEncoded(step.task, batch)

    def _check_workers(self) -> None:
        """Give up writes whose worker is gone: Dask would wait for it forever.

        Raises InputError where it would wait forever for any worker, or for the scheduler.
        """
        if self.client.status != "running":
            raise InputError(_SCHEDULER_GONE)
        workers = self._workers()
        for future, step in list(self._running.items()):
            if step.address and step.address not in workers:
                del self._running[future]
                self._queue.put(TaskLost(step.task, is_explained=step.address in self._ended))
        self._seconds_without_workers = 0.0 if workers else self._seconds_without_workers + PATIENCE_SECONDS
        if self._seconds_without_workers >= ALL_WORKERS_LOST_SECONDS:
            raise InputError(
                f"no process has been left to encode for {ALL_WORKERS_LOST_SECONDS:.0f} s; {_RESUME}"
            )


@contextmanager
def open_dask_executor(
    scheduler: str | None, num_workers: int, num_batches: int = 1
) -> Iterator[DaskExecutor]:
    """An executor on the Dask scheduler at an address, or on a local cluster; see `connect`."""
    with connect(scheduler, num_workers, num_batches) as client:
        yield DaskExecutor(client)


def encode_on_worker(videos: Batch, job: EncodeJob, most_stacks: int) -> tuple[str, EncodedBatch]:
    """Encode a batch in a worker process; returns the worker's address too."""
    worker = get_worker()
    encoded = encode_batch(
        videos,
        job_of_this_worker(job),
        lambda num_frames: worker.log_event(_FRAMES_TOPIC, num_frames),
        most_stacks=most_stacks,
        # Dask removes a worker's folder when the worker ends, however it ends.
        scratch_parent=Path(worker.local_directory),
        on_hang=lambda video_id, num_frames: _end_process(worker, video_id, num_frames),
    )
    return worker.address, encoded


def job_of_this_worker(job: EncodeJob) -> EncodeJob:
    """A job on the device of the worker that asks."""
    return replace(job, device=device_of_worker(job.device, get_worker().name, torch.cuda.device_count()))


def _end_process(worker: Worker, video_id: str, num_frames: int) -> None:
    """End this process from another thread than the one that hangs; nothing milder frees that one."""
    worker.log_event(_HANG_TOPIC, (video_id, num_frames, worker.address))
    time.sleep(FAREWELL_SECONDS)
    os._exit(1)
