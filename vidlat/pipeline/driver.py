"""The driver of an encode: which task follows which, and what becomes of one that is lost.

For each batch: a task encodes it to scratch, the driver reserves shards, the task writes them, the driver
commits. A batch that fails on the way leaves at most unused shards, never half a video.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count

from vidlat.paths import is_address
from vidlat.pipeline.attempts import Attempt, Suspects
from vidlat.pipeline.executor import (
    BatchEncoded,
    BatchWritten,
    DecoderHangs,
    Event,
    Executor,
    FramesEncoded,
    Task,
    TaskLost,
)
from vidlat.pipeline.failures import hang_failure
from vidlat.pipeline.job import EncodeJob
from vidlat.pipeline.plan import EncodePlan
from vidlat.pipeline.task import EncodedBatch
from vidlat.store.writing.lease import LeaseHolder
from vidlat.store.writing.writer import CacheWriter
from vidlat.types import FailureRecord, VideoRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeProgress:
    """What happened: frames encoded (padding included, not yet safe), videos committed or failed.

    The first event alone tells: taken_over_from, the dead process that held the cache before; has_locks,
    whether the file system of the cache has locks; dashboard, the address of a page that shows the work.
    """

    taken_over_from: LeaseHolder | None = None
    has_locks: bool = True
    dashboard: str = ""
    num_frames: int = 0
    records: tuple[VideoRecord, ...] = ()
    failures: tuple[FailureRecord, ...] = ()


def run_encode(
    plan: EncodePlan, job: EncodeJob, writer: CacheWriter, executor: Executor
) -> Generator[EncodeProgress]:
    """Encode every batch of a plan into a cache, yielding what happens as it happens.

    executor: entered, before the writer is opened: from then on a Ctrl-C comes as an event, and none is lost.
    On return every video of the plan is either committed or recorded as a failure.
    """
    yield from _Driver(job, writer, executor).run(plan)


class _Driver:
    def __init__(self, job: EncodeJob, writer: CacheWriter, executor: Executor) -> None:
        self.job = job
        self.writer = writer
        # A folder by its absolute path: workers may run in another one.
        self.cache = writer.where if is_address(writer.where) else str(writer.path)
        self.executor = executor
        self.waiting: deque[Attempt] = deque()
        self.suspects = Suspects(job.batch)
        self.hung: set[str] = set()
        self.encoding: dict[Task, Attempt] = {}
        self.writing: dict[Task, Attempt] = {}
        self.tasks = count()

    def run(self, plan: EncodePlan) -> Iterator[EncodeProgress]:
        self.waiting.extend(Attempt(batch, self.job.batch) for batch in plan.batches)
        while self.waiting or self.suspects or self.encoding or self.writing:
            self._submit()
            if event := self.executor.next_event():
                yield from self._handle(event)

    @property
    def num_running(self) -> int:
        return len(self.encoding) + len(self.writing)

    def _submit(self) -> None:
        capacity = self.executor.capacity() if self.waiting else 0
        while self.waiting and self.num_running < capacity:
            self._start(self.waiting.popleft())
        if self.suspects and not self.num_running:
            self._start(self.suspects.next())

    def _start(self, attempt: Attempt) -> None:
        task = next(self.tasks)
        self.encoding[task] = attempt
        self.executor.encode(task, attempt.videos, self.job, attempt.most_stacks)

    def _handle(self, event: Event) -> Iterator[EncodeProgress]:
        match event:
            case FramesEncoded(num_frames):
                yield EncodeProgress(num_frames=num_frames)
            case DecoderHangs(video_id, num_frames):
                yield from self._fail_hanging(video_id, num_frames)
            case _ if event.task in self.encoding:
                attempt = self.encoding.pop(event.task)
                if self.hung.intersection(video.video_id for video in attempt.videos):
                    yield from self._retry(attempt)  # its process is ending, whatever came of the task
                else:
                    yield from self._take_result(event, attempt)
            case _:
                yield from self._take_result(event, self.writing.pop(event.task))

    def _take_result(
        self, event: BatchEncoded | BatchWritten | TaskLost, attempt: Attempt
    ) -> Iterator[EncodeProgress]:
        match event:
            case BatchEncoded(task, batch):
                yield from self._write(task, attempt, batch)
            case BatchWritten(_, records):
                self.writer.commit(records)
                self.suspects.clear(attempt)
                yield EncodeProgress(records=tuple(records))
            case TaskLost(_, is_explained):
                yield from self._retry(attempt, is_explained)

    def _write(self, task: Task, attempt: Attempt, batch: EncodedBatch) -> Iterator[EncodeProgress]:
        yield from self._record(batch.failures)
        if batch.videos:
            self.writing[task] = attempt.without({failure.video_id for failure in batch.failures})
            start = self.writer.reserve(self.writer.schema.num_shards(batch.num_latent_frames))
            self.executor.write(task, batch, self.cache, start)

    def _fail_hanging(self, video_id: str, num_frames: int) -> Iterator[EncodeProgress]:
        """Record the video at once; its process ends itself, and the other videos of its batch go on."""
        videos = [video for attempt in self.encoding.values() for video in attempt.videos]
        hanging = [video for video in videos if video.video_id == video_id]
        self.hung.update(video.video_id for video in hanging)
        limit_seconds = self.job.time_limit_seconds
        yield from self._record([hang_failure(video, limit_seconds, num_frames) for video in hanging])

    def _retry(self, attempt: Attempt, is_explained: bool = False) -> Iterator[EncodeProgress]:
        """Another attempt for the videos of a lost task: each alone, unless it is known why it was lost."""
        innocent = attempt.without(self.hung)
        if innocent == attempt and not is_explained:
            yield from self._record(self.suspects.add(attempt))
        elif innocent.videos:
            self.waiting.appendleft(innocent)

    def _record(self, failures: list[FailureRecord]) -> Iterator[EncodeProgress]:
        if failures:
            self.writer.record_failures(failures)
            yield EncodeProgress(failures=tuple(failures))
