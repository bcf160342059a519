"""Compressed data that must be read out of order: inflated to a scratch file, within a budget."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from vidlat.errors import DecodeError
from vidlat.types import Warn

MAX_INFLATED_BYTES = 16 << 30
"""Zeros shrink a thousandfold: a file that promises to inflate beyond this is refused before it is tried."""

_PIECE_BYTES = 1 << 20


def refuse_bombs(num_bytes: int) -> None:
    """Raise DecodeError for compressed data that states more than MAX_INFLATED_BYTES."""
    if num_bytes > MAX_INFLATED_BYTES:
        reason = f"inflates to {num_bytes:,} bytes; at most {MAX_INFLATED_BYTES:,} bytes are inflated"
        raise DecodeError(reason, "too-large")


@contextmanager
def inflated(stream: IO[bytes], num_bytes: int, warn: Warn) -> Iterator[IO[bytes]]:
    """The first `num_bytes` of a compressed stream as a nameless scratch file, gone when it is closed.

    Raises DecodeError where the stream is shorter; see `check_end`.
    """
    with tempfile.TemporaryFile() as scratch:
        num_left = num_bytes
        while num_left:
            piece = stream.read(min(_PIECE_BYTES, num_left))
            if not piece:
                reason = f"breaks off: {num_bytes - num_left} of {num_bytes} bytes that its header states"
                raise DecodeError(reason, "truncated")
            scratch.write(piece)
            num_left -= len(piece)
        check_end(stream, warn)
        scratch.flush()
        yield scratch


def check_end(stream: IO[bytes], warn: Warn) -> None:
    """At the end of what the header states: the library compares its checksum; of more, no more is read."""
    if stream.read(1):
        warn("holds more than its header states: the rest is not read")
