"""Running an encode plan on Dask: which task follows which, and what becomes of one that is lost.

For each batch: a worker encodes it to scratch, the driver reserves shards, the same worker writes them, the
driver commits. A batch that fails on the way leaves at most unused shards, never half a video.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue

import torch
from distributed import CancelledError, Client, Future, KilledWorker, Worker, get_worker

from vidlat.errors import InputError, ShardExistsError
from vidlat.pipeline.attempts import Attempt, Suspects
from vidlat.pipeline.cluster import device_of_worker
from vidlat.pipeline.plan import Batch, EncodePlan
from vidlat.pipeline.task import EncodedBatch, EncodeJob, encode_batch, failure_of, write_batch
from vidlat.pipeline.time_limit import TIME_LIMIT, describe_hang
from vidlat.store.writer import CacheWriter
from vidlat.types import FailureRecord, VideoRecord

BATCHES_WAITING_A_WORKER = 1
"""Beside those that it works on: more would only lose more to a kill."""

PATIENCE_SECONDS = 5.0
"""How long nothing may happen before the driver looks whether a worker it waits for is still there."""

RESULT_SECONDS = 20.0
"""How long a finished task's small result may take: a worker that died just then never sends it."""

ALL_WORKERS_LOST_SECONDS = 120.0
"""How long to wait for new workers when the last one is gone."""

FAREWELL_SECONDS = 1.0
"""How long a process that ends itself stays, for its last words to be sent."""

_FRAMES_TOPIC, _HANG_TOPIC = "vidlat-frames", "vidlat-hang"

_SCHEDULER_GONE = "the Dask scheduler went away"
_GO_ON = "what was finished is safe, the same command goes on from there"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeProgress:
    """What happened: frames encoded (padding included, not yet safe), videos committed or failed."""

    num_frames: int = 0
    records: tuple[VideoRecord, ...] = ()
    failures: tuple[FailureRecord, ...] = ()


def run_encode(
    plan: EncodePlan, job: EncodeJob, writer: CacheWriter, client: Client
) -> Iterator[EncodeProgress]:
    """Encode every batch of a plan into a cache, yielding what happens as it happens.

    On return every video of the plan is either committed or recorded as a failure.
    """
    yield from _Encode(job, writer, client).run(plan)


@dataclass(frozen=True, slots=True)
class _Step:
    """What a running future does: encode, or write what was encoded on the worker at `address`."""

    attempt: Attempt
    encoded: EncodedBatch | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class _Hang:
    """What a worker says before it ends itself: the decoder of this video does not come back."""

    video_id: str
    num_frames: int
    address: str


class _Encode:
    def __init__(self, job: EncodeJob, writer: CacheWriter, client: Client) -> None:
        self.job = job
        self.writer = writer
        # Workers may run in another folder, or on another machine with the same file system.
        self.cache_path = writer.path.absolute()
        self.client = client
        self.waiting: deque[Attempt] = deque()
        self.suspects = Suspects(job.batch)
        self.hung: set[str] = set()
        self.ended: set[str] = set()
        self.running: dict[Future, _Step] = {}
        self.done: SimpleQueue[Future | _Hang | int] = SimpleQueue()
        self.seconds_without_workers = 0.0

    def run(self, plan: EncodePlan) -> Iterator[EncodeProgress]:
        self.waiting.extend(Attempt(batch, self.job.batch) for batch in plan.batches)
        self.client.subscribe_topic(_FRAMES_TOPIC, lambda event: self.done.put(event[1]))
        self.client.subscribe_topic(_HANG_TOPIC, lambda event: self.done.put(_Hang(*event[1])))
        try:
            while self.waiting or self.suspects or self.running:
                self._submit()
                try:
                    event = self.done.get(timeout=PATIENCE_SECONDS)
                except Empty:
                    yield from self._look_after_workers()
                    continue
                yield from self._handle(event)
        finally:
            if self.client.status == "running":
                self.client.unsubscribe_topic(_FRAMES_TOPIC)
                self.client.unsubscribe_topic(_HANG_TOPIC)
                self.client.cancel(list(self.running))

    def _handle(self, event: Future | _Hang | int) -> Iterator[EncodeProgress]:
        if isinstance(event, int):
            yield EncodeProgress(num_frames=event)
        elif isinstance(event, _Hang):
            yield from self._fail_hanging(event)
        elif event in self.running:
            yield from self._finish(event)

    def _workers(self) -> dict[str, int]:
        """The address of each worker, and how many batches it works on at once."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return {address: worker["nthreads"] for address, worker in workers.items()}

    def _submit(self) -> None:
        num_in_flight = sum(threads + BATCHES_WAITING_A_WORKER for threads in self._workers().values())
        while self.waiting and len(self.running) < max(1, num_in_flight):
            self._start_encoding(self.waiting.popleft())
        if self.suspects and not self.running:
            self._start_encoding(self.suspects.next())

    def _start_encoding(self, attempt: Attempt) -> None:
        self._watch(
            self.client.submit(_encode_on_worker, attempt.videos, self.job, attempt.most_stacks, pure=False),
            _Step(attempt),
        )

    def _watch(self, future: Future, step: _Step) -> None:
        self.running[future] = step
        future.add_done_callback(self.done.put)

    def _finish(self, future: Future) -> Iterator[EncodeProgress]:
        """Take a finished future one step further: to its write, its commit, or another attempt.

        What a task raises concerns the whole encode (a full disk, wrong weights) and ends it.
        """
        step = self.running.pop(future)
        if step.encoded is None and step.attempt != step.attempt.without(self.hung):
            yield from self._retry(step.attempt)  # its process is ending, whatever came of it
            return
        try:
            answer = future.result(timeout=RESULT_SECONDS)
        except (KilledWorker, TimeoutError) as error:
            died = getattr(error, "last_worker", None)
            yield from self._retry(step.attempt, died.address if died else None)
            return
        except (ShardExistsError, FileNotFoundError):
            # Dask lost the answer with its worker and ran the write again, on what it had left.
            if step.encoded is None:
                raise
            yield from self._retry(step.attempt)
            return
        except CancelledError as error:
            raise InputError(f"{_SCHEDULER_GONE}; {_GO_ON}") from error
        if step.encoded is None:
            yield from self._start_writing(step.attempt, *answer)
        else:
            self.writer.commit(answer)
            self.suspects.clear(step.attempt)
            yield EncodeProgress(records=tuple(answer))

    def _start_writing(
        self, attempt: Attempt, address: str, encoded: EncodedBatch
    ) -> Iterator[EncodeProgress]:
        left = attempt.without({failure.video_id for failure in encoded.failures})
        yield from self._record(encoded.failures)
        if encoded.videos:
            start = self.writer.reserve(self.writer.schema.num_shards(encoded.num_latent_frames))
            # The scratch files are where the batch was encoded.
            write = self.client.submit(
                write_batch, encoded, self.cache_path, start, pure=False, workers=[address], priority=1
            )
            self._watch(write, _Step(left, encoded, address))

    def _look_after_workers(self) -> Iterator[EncodeProgress]:
        """Retry what was to be written by a worker that is gone: Dask would wait for it for ever.

        Raises InputError where it would do so for any worker, or for the scheduler.
        """
        if self.client.status != "running":
            raise InputError(f"{_SCHEDULER_GONE}; {_GO_ON}")
        workers = self._workers()
        for future, step in list(self.running.items()):
            if step.address and step.address not in workers:
                del self.running[future]
                yield from self._retry(step.attempt, step.address)
        self.seconds_without_workers = 0.0 if workers else self.seconds_without_workers + PATIENCE_SECONDS
        if self.seconds_without_workers >= ALL_WORKERS_LOST_SECONDS:
            raise InputError(
                f"no process has been left to encode for {ALL_WORKERS_LOST_SECONDS:.0f} s; {_GO_ON}"
            )

    def _fail_hanging(self, hang: _Hang) -> Iterator[EncodeProgress]:
        """Record the video at once; its process ends itself, and the other videos of its batch go on."""
        encoding = [step.attempt for step in self.running.values() if step.encoded is None]
        hanging = [v for attempt in encoding for v in attempt.videos if v.video_id == hang.video_id]
        reason = describe_hang(self.job.time_limit_seconds, hang.num_frames)
        self.hung.update(video.video_id for video in hanging)
        self.ended.add(hang.address)
        yield from self._record([failure_of(video, TIME_LIMIT, reason) for video in hanging])

    def _retry(self, attempt: Attempt, address: str | None = None) -> Iterator[EncodeProgress]:
        """Another attempt for the videos of a batch whose worker died: alone, unless it is known why."""
        innocent = attempt.without(self.hung)
        if innocent == attempt and address not in self.ended:
            yield from self._record(self.suspects.add(attempt))
        elif innocent.videos:
            self.waiting.appendleft(innocent)

    def _record(self, failures: list[FailureRecord]) -> Iterator[EncodeProgress]:
        if failures:
            self.writer.record_failures(failures)
            yield EncodeProgress(failures=tuple(failures))


def _encode_on_worker(videos: Batch, job: EncodeJob, most_stacks: int) -> tuple[str, EncodedBatch]:
    worker = get_worker()
    job = replace(job, device=device_of_worker(job.device, worker.name, torch.cuda.device_count()))
    encoded = encode_batch(
        videos,
        job,
        lambda num_frames: worker.log_event(_FRAMES_TOPIC, num_frames),
        most_stacks=most_stacks,
        # Dask removes a worker's folder when it ends, however it ends.
        scratch_parent=Path(worker.local_directory),
        on_hang=lambda video_id, num_frames: _end_process(worker, video_id, num_frames),
    )
    return worker.address, encoded


def _end_process(worker: Worker, video_id: str, num_frames: int) -> None:
    """End this process from another thread than the one that hangs; nothing milder frees that one."""
    worker.log_event(_HANG_TOPIC, (video_id, num_frames, worker.address))
    time.sleep(FAREWELL_SECONDS)
    os._exit(1)
