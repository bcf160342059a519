"""Steps whose figures a device is still to compute: reading them at once would let it wait for the host."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch

T = TypeVar("T")

NUM_BEHIND = 2
"""Steps that a GPU may be behind the host: it always has one to go on with.

Not more, because a host that runs far ahead waits for data that the GPU does not need yet, which would be
counted as data wait, and because processes that train together agree by these figures when to stop.
"""


class ReadStep(NamedTuple):
    """A step whose figures are here; the last of them is how many processes should stop.

    data_wait: the share of its time spent waiting for data.
    """

    step: int
    learning_rate: float
    figures: list[float]
    steps_per_second: float
    data_wait: float


class UnreadSteps:
    """The steps asked of a device, in their order, until their figures are read.

    should_stop: whether the figures read so far say that a process asked to stop.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float, OnItsWay]] = deque()
        self.should_stop = False
        self.restart_clock()

    def __len__(self) -> int:
        return len(self._steps)

    def restart_clock(self) -> None:
        """Count neither what has been since the last reading nor its waits."""
        self._began, self._waited = time.perf_counter(), 0.0

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time until each of them comes is waiting for data."""
        iterator, end = iter(items), object()
        while True:
            began = time.perf_counter()
            item = next(iterator, end)
            self._waited += time.perf_counter() - began
            if item is end:
                return
            yield item  # type: ignore[misc]  # not the end

    def add(self, step: int, learning_rate: float, figures: torch.Tensor) -> None:
        """A step was asked for; figures: (N,), the last of them how many processes should stop."""
        self._steps.append((step, learning_rate, OnItsWay(figures)))

    def read(self, num_left: int) -> list[ReadStep]:
        """The oldest steps, all but the last `num_left`; waits until they are computed.

        They share equally the time, and the waits for data, since the last reading.
        """
        read = [
            (step, learning_rate, figures.wait())
            for step, learning_rate, figures in (
                self._steps.popleft() for _ in range(max(len(self._steps) - num_left, 0))
            )
        ]
        if not read:
            return []
        self.should_stop |= any(figures[-1] for _, _, figures in read)
        seconds, waited = time.perf_counter() - self._began, self._waited
        self.restart_clock()
        return [ReadStep(*step, len(read) / seconds, waited / seconds) for step in read]


class OnItsWay:
    """Numbers on their way to the host, which does not wait for them until it is asked to."""

    def __init__(self, numbers: torch.Tensor) -> None:
        self._numbers = numbers.to("cpu", non_blocking=True)  # from a GPU into pinned memory
        self._arrival = torch.cuda.Event() if numbers.is_cuda else None  # type: ignore[no-untyped-call]
        if self._arrival:
            self._arrival.record(torch.cuda.current_stream(numbers.device))

    def wait(self) -> list[float]:
        """The numbers, once they are here."""
        if self._arrival:
            self._arrival.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers
