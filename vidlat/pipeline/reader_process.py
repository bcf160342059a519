"""Reading videos in processes of their own, which share no interpreter lock with the one that encodes.

A thread that encodes for a GPU has such a process at work. It is a child that is not forked, so that neither
CUDA nor threads matter, loads no torch, and ends when its parent does, however that ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, BinaryIO, NamedTuple, NoReturn

from vidlat.config import LatentSettings
from vidlat.encode.memory import keep_freed_memory
from vidlat.errors import InputError, ReaderDiedError, one_line
from vidlat.pipeline.failures import hang_failure
from vidlat.pipeline.read_video import Stack, VideoFacts, read_in_time
from vidlat.timing import Timing
from vidlat.types import FailureRecord, InputVideo

_PROGRAM = "from vidlat.pipeline.reader_process import serve; serve()"

_READY = "ready"


class _Hang(NamedTuple):
    """The last answer of a process whose decoder hangs."""

    num_frames: int


class ReaderProcess:
    """A process that reads one video at a time.

    is_idle: whether the last video was read to its end; else the process is of no further use.
    Raises InputError where it cannot be started.
    """

    def __init__(self) -> None:
        program = f"import sys; sys.path[:] = {sys.path!r}; {_PROGRAM}"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,  # out of reach of Ctrl-C, which the driver receives
            )
        except OSError as error:
            raise _not_started(error) from error
        try:
            self._receive()
        except ReaderDiedError as error:
            self.close()
            raise _not_started(error) from error
        self.is_idle = True

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def read(
        self, video: InputVideo, settings: LatentSettings, timing: Timing, limit_seconds: float
    ) -> Iterator[Stack | VideoFacts | FailureRecord]:
        """As `read_video`. A decoder that hangs is a failure too.

        Raises ReaderDiedError where the process has ended.
        """
        self.is_idle = False
        try:
            pickle.dump((video, settings, timing, limit_seconds), self._requests)
            self._requests.flush()
        except OSError as error:
            raise ReaderDiedError("the process that reads videos has ended") from error
        while isinstance(item := self._receive(), Stack):
            yield item
        if isinstance(item, _Hang):
            yield hang_failure(video, limit_seconds, item.num_frames)
        else:
            self.is_idle = True
            yield item

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        with suppress(BrokenPipeError), self._process:  # closes the pipes and waits
            pass

    @property
    def _requests(self) -> BinaryIO:
        assert self._process.stdin
        return self._process.stdin  # type: ignore[return-value]

    def _receive(self) -> Any:
        assert self._process.stdout
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise ReaderDiedError("the process that reads videos has ended") from error


def _not_started(error: Exception) -> InputError:
    return InputError(f"a process that reads videos did not start ({one_line(error)}); is memory short?")


_IDLE: list[ReaderProcess] = []


@contextmanager
def _borrowed() -> Iterator[ReaderProcess]:
    """A process of this one's that reads nothing else meanwhile, kept for the next if it comes to its end."""
    try:
        reader = _IDLE.pop()  # atomic, as is append
    except IndexError:
        reader = ReaderProcess()
    try:
        yield reader
    finally:
        if reader.is_idle:
            _IDLE.append(reader)
        else:
            reader.close()


def read_apart(
    video: InputVideo,
    settings: LatentSettings,
    timing: Timing,
    limit_seconds: float,
    is_refused: Callable[[], bool],
) -> Iterator[Stack | VideoFacts | FailureRecord]:
    """As `read_in_time`, in a process of its own; a decoder that hangs is ended with it.

    Raises ReaderDiedError where the process dies, InputError where none can be started.
    """
    with _borrowed() as reader:
        for item in reader.read(video, settings, timing, limit_seconds):
            yield item
            if is_refused():
                return


def serve() -> NoReturn:
    """What the process does: read the videos that its parent asks for, until that is gone."""
    keep_freed_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    requests: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_take_requests, args=(sys.stdin.buffer, requests), daemon=True).start()
    answering = Lock()

    def answer(item: object) -> None:
        with answering:
            pickle.dump(item, answers, protocol=5)
            answers.flush()

    def end_hanging(num_frames: int) -> NoReturn:
        answer(_Hang(num_frames))
        os._exit(1)

    try:
        answer(_READY)
        while True:
            video, settings, timing, limit_seconds = requests.get()
            for item in read_in_time(video, settings, timing, limit_seconds, lambda: False, end_hanging):
                answer(item)
    except BrokenPipeError:  # nobody listens any more
        os._exit(1)


def _take_requests(pipe: BinaryIO, requests: SimpleQueue[Any]) -> None:
    """In a thread of its own, which notices the end of the parent while a decoder is at work, or hangs."""
    try:
        while True:
            requests.put(pickle.load(pipe))
    except EOFError:
        os._exit(1)
