"""How long one video may take: a check between its frames, and an end to a decoder that never comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from vidlat.errors import DecodeError

GRACE_SECONDS = 10.0
"""How long beyond its limit a decoder may keep a frame before it counts as hanging."""

TIME_LIMIT = "time-limit"
"""The kind of failure."""

Clock = Callable[[], float]

OnHang = Callable[[int], None]
"""Told, in another thread, how many frames were decoded before the decoder hung; it must end the process."""


class Turn:
    """The time of one video, from its first frame to its last; what it waited before does not count."""

    def __init__(self, limit_seconds: float, clock: Clock) -> None:
        self.limit_seconds = limit_seconds
        self.num_frames = 0
        self._is_decoding = True
        self._clock = clock
        self._began = clock()

    def check(self) -> None:
        """Raises DecodeError if the time is up."""
        if self.limit_seconds and self._clock() - self._began > self.limit_seconds:
            raise DecodeError(
                f"took longer than the {self.limit_seconds:g} seconds of --time-limit-seconds; "
                f"{self.num_frames} frames were decoded by then",
                TIME_LIMIT,
            )

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """While the VAE is at work no decoder hangs; the check that follows ends the turn."""
        self._is_decoding = False
        yield
        self._is_decoding = True

    def end_hang(self, on_hang: OnHang) -> None:
        """What the timer does at the end of the grace."""
        if self._is_decoding:
            on_hang(self.num_frames)


@contextmanager
def take_turn(limit_seconds: float, on_hang: OnHang, clock: Clock = time.monotonic) -> Iterator[Turn]:
    """A turn of at most so many seconds, 0 for any, and a timer that tells of a decoder that hangs."""
    turn = Turn(limit_seconds, clock)
    if not limit_seconds:
        yield turn
        return
    timer = Timer(limit_seconds + GRACE_SECONDS, turn.end_hang, [on_hang])
    timer.daemon = True
    timer.start()
    try:
        yield turn
    finally:
        timer.cancel()


def describe_hang(limit_seconds: float, num_frames: int) -> str:
    """The reason to record for a video whose decoder hung after `num_frames`."""
    return (
        f"its decoder did not come back within the {limit_seconds:g} seconds of --time-limit-seconds, after "
        f"{num_frames} frames; its process was ended"
    )
