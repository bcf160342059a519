"""How long decoding a video may take: a check between its frames, and an end to a decoder that hangs.

Time that decoded frames wait for the VAE does not count, because it says nothing about the video.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from vidlat.errors import DecodeError

GRACE_SECONDS = 10.0
"""How long after its deadline a decoder may take for a frame before it counts as hanging."""

TIME_LIMIT = "time-limit"
"""The kind of failure."""

Clock = Callable[[], float]

OnHang = Callable[[int], None]
"""Called in another thread with the number of frames decoded before the hang; must end the process."""


class Deadline:
    """When the decoding of one video has to be finished. num_frames: decoded so far."""

    def __init__(self, limit_seconds: float, clock: Clock) -> None:
        self.limit_seconds = limit_seconds
        self.num_frames = 0
        self._clock = clock
        self._began = clock()
        self._paused_at: float | None = None

    def elapsed(self) -> float:
        """Seconds spent so far, without pauses."""
        return (self._clock() if self._paused_at is None else self._paused_at) - self._began

    def check(self) -> None:
        """Raises DecodeError if the deadline has passed."""
        if self.limit_seconds and self.elapsed() > self.limit_seconds:
            raise DecodeError(
                f"took longer than the {self.limit_seconds:g} seconds of --time-limit-seconds; "
                f"{self.num_frames} frames were decoded by then",
                TIME_LIMIT,
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while frames wait for the VAE."""
        paused_at = self._paused_at = self._clock()
        yield
        self._began += self._clock() - paused_at
        self._paused_at = None

    def watch(self, on_hang: OnHang, is_over: Event) -> None:
        """Wait until the video is decoded; call `on_hang` if its deadline passes by more than the grace."""
        limit = self.limit_seconds + GRACE_SECONDS
        while not is_over.wait(max(limit - self.elapsed(), GRACE_SECONDS / 10)):
            if self.elapsed() >= limit:
                on_hang(self.num_frames)
                return


@contextmanager
def start_deadline(
    limit_seconds: float, on_hang: OnHang, clock: Clock = time.monotonic
) -> Iterator[Deadline]:
    """A deadline in `limit_seconds`, 0 for none, with a thread that watches for a decoder that hangs."""
    deadline = Deadline(limit_seconds, clock)
    if not limit_seconds:
        yield deadline
        return
    is_over = Event()
    Thread(target=deadline.watch, args=(on_hang, is_over), daemon=True).start()
    try:
        yield deadline
    finally:
        is_over.set()
