"""What runs encode tasks: the protocol between the driver and an executor, and an executor in this process.

A task is one batch on its way into the cache, in two steps: `encode` leaves its latents in scratch files,
`write` puts them into shards. The driver (driver.py) decides what follows on what; an executor only runs.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch

from vidlat.errors import ReaderDiedError
from vidlat.pipeline.job import EncodeJob
from vidlat.pipeline.plan import Batch
from vidlat.pipeline.task import EncodedBatch, encode_batch, write_batch
from vidlat.types import VideoRecord

Task = int
"""Number of a task, chosen by the driver; both steps of the task carry it."""


@dataclass(frozen=True, slots=True)
class FramesEncoded:
    """Progress of some task. num_frames: frames since the last event, padding included."""

    num_frames: int


@dataclass(frozen=True, slots=True)
class BatchEncoded:
    """The first step of a task is done; `write` may follow."""

    task: Task
    batch: EncodedBatch


@dataclass(frozen=True, slots=True)
class BatchWritten:
    """The second step of a task is done: its shards are on disk and its records can be committed."""

    task: Task
    records: list[VideoRecord]


@dataclass(frozen=True, slots=True)
class TaskLost:
    """A task ended without a result, usually because its process died, or the one that read for it.

    is_explained: the process ended itself because of a decoder that hangs, as `DecoderHangs` said before.
    """

    task: Task
    is_explained: bool = False


@dataclass(frozen=True, slots=True)
class DecoderHangs:
    """The decoder of a video does not return; its process is about to end itself, and its tasks are lost."""

    video_id: str
    num_frames: int


Event = FramesEncoded | BatchEncoded | BatchWritten | TaskLost | DecoderHangs


class Executor(Protocol):
    """Runs the tasks of one encode at a time.

    As a context manager it lasts as long as that encode; what is unfinished at the end is cancelled.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def dashboard(self) -> str:
        """Address of a page that shows the work; empty where there is none."""

    def capacity(self) -> int:
        """Number of tasks to keep submitted at present: those being worked on, and a few in reserve."""

    def encode(self, task: Task, videos: Batch, job: EncodeJob, most_stacks: int) -> None:
        """Submit the first step of a task: encode videos to scratch, with at most `most_stacks` per call."""

    def write(self, task: Task, batch: EncodedBatch, cache: str, start: int) -> None:
        """Submit the second step of a task: write its shards, from latent frame `start` on."""

    def next_event(self) -> Event | None:
        """Wait for the next event; None where nothing has happened for a while.

        Raises the error of a task that concerns the whole encode, such as a full disk or other weights, and
        InputError where nothing can happen any more.
        """


class InProcessExecutor:
    """Runs tasks in this process, one after the other: nothing to start, and debuggers and profilers see it.

    A time limit applies between two frames only: a decoder that does not return can be ended only in a
    process of its own, as for a GPU.
    scratch_parent: where encoded latents are kept until they are written; None for the system's folder.
    """

    dashboard = ""

    def __init__(self, scratch_parent: Path | None = None) -> None:
        self._scratch_parent = scratch_parent
        self._steps: deque[Callable[[], Event]] = deque()
        self._events: deque[Event] = deque()
        self._at_exit = ExitStack()

    def __enter__(self) -> Self:
        self._at_exit.callback(torch.set_num_threads, torch.get_num_threads())  # tasks change it
        folder = tempfile.TemporaryDirectory(prefix="vidlat-", dir=self._scratch_parent)
        self._scratch = Path(self._at_exit.enter_context(folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.clear()
        self._events.clear()
        self._at_exit.close()

    def capacity(self) -> int:
        """One task: the next is submitted when it is done."""
        return 1

    def encode(self, task: Task, videos: Batch, job: EncodeJob, most_stacks: int) -> None:
        def step() -> Event:
            try:
                batch = encode_batch(
                    videos,
                    job,
                    lambda num_frames: self._events.append(FramesEncoded(num_frames)),
                    most_stacks=most_stacks,
                    scratch_parent=self._scratch,
                )
            except ReaderDiedError:
                return TaskLost(task)
            return BatchEncoded(task, batch)

        self._steps.append(step)

    def write(self, task: Task, batch: EncodedBatch, cache: str, start: int) -> None:
        self._steps.append(lambda: BatchWritten(task, write_batch(batch, cache, start)))

    def next_event(self) -> Event:
        """Run the next step if no event is left."""
        if not self._events:
            self._events.append(self._steps.popleft()())
        return self._events.popleft()
