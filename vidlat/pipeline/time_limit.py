"""How long decoding a video may take: a check between its frames, and an end to a decoder that hangs.

What its frames wait for the VAE does not count: how long that is tells nothing of the video.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from vidlat.errors import DecodeError

GRACE_SECONDS = 10.0
"""How long beyond its limit a decoder may keep a frame before it counts as hanging."""

TIME_LIMIT = "time-limit"
"""The kind of failure."""

Clock = Callable[[], float]

OnHang = Callable[[int], None]
"""Told, in another thread, how many frames were decoded before the decoder hung; it must end the process."""


class Turn:
    """The time of one video, from its first frame to its last."""

    def __init__(self, limit_seconds: float, clock: Clock) -> None:
        self.limit_seconds = limit_seconds
        self.num_frames = 0
        self._clock = clock
        self._began = clock()
        self._waiting_since: float | None = None

    def spent(self) -> float:
        """Seconds of it so far."""
        since = self._waiting_since
        return (self._clock() if since is None else since) - self._began

    def check(self) -> None:
        """Raises DecodeError if the time is up."""
        if self.limit_seconds and self.spent() > self.limit_seconds:
            raise DecodeError(
                f"took longer than the {self.limit_seconds:g} seconds of --time-limit-seconds; "
                f"{self.num_frames} frames were decoded by then",
                TIME_LIMIT,
            )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time stands still while frames wait for the VAE."""
        since = self._waiting_since = self._clock()
        yield
        self._began += self._clock() - since
        self._waiting_since = None

    def end_hang(self, on_hang: OnHang, is_over: Event) -> None:
        """Wait until the turn is over, or has passed its limit by the grace: then tell of it."""
        most = self.limit_seconds + GRACE_SECONDS
        while not is_over.wait(max(most - self.spent(), GRACE_SECONDS / 10)):
            if self.spent() >= most:
                on_hang(self.num_frames)
                return


@contextmanager
def take_turn(limit_seconds: float, on_hang: OnHang, clock: Clock = time.monotonic) -> Iterator[Turn]:
    """A turn of at most so many seconds, 0 for any, and a thread that tells of a decoder that hangs."""
    turn = Turn(limit_seconds, clock)
    if not limit_seconds:
        yield turn
        return
    is_over = Event()
    Thread(target=turn.end_hang, args=(on_hang, is_over), daemon=True).start()
    try:
        yield turn
    finally:
        is_over.set()


def describe_hang(limit_seconds: float, num_frames: int) -> str:
    """The reason to record for a video whose decoder hung after `num_frames`."""
    return (
        f"its decoder did not come back within the {limit_seconds:g} seconds of --time-limit-seconds, after "
        f"{num_frames} frames; its process was ended"
    )
