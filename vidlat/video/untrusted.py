"""Protection against hostile and damaged files: size limits, bounded inflating, one type of error."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from vidlat.errors import DecodeError, one_line
from vidlat.types import Warn

MAX_FRAME_PIXELS = 64_000_000
"""Larger frames are refused before decoding: a file of one kilobyte can declare a frame of gigabytes."""

MAX_INFLATED_BYTES = 16 << 30
"""Files that declare more inflated data are refused unread: zeros compress by a factor of a thousand."""

_PIECE_BYTES = 1 << 20

# These warn of what they handle, and may quote patient data. `warnings.catch_warnings`, by which readers
# ignore that, holds for the whole process: of several threads that read, one may end it for another.
for _library in ("PIL", "pydicom", "nibabel"):
    warnings.filterwarnings("ignore", module=rf"{_library}(\.|$)")


def warn_once(warn: Warn) -> Warn:
    """Wrap `warn` so that it receives each text once, however often a video is read."""
    seen: set[str] = set()

    def warn_if_new(text: str) -> None:
        if text not in seen:
            seen.add(text)
            warn(text)

    return warn_if_new


@contextmanager
def decode_errors(prefix: str) -> Iterator[None]:
    """Turn every exception that a library raises over a file's bytes into "prefix: reason", a DecodeError."""
    try:
        yield
    except DecodeError:
        raise
    except EOFError as error:
        raise DecodeError(f"{prefix}: the file is truncated", "truncated") from error
    # Damaged bytes make libraries raise anything, from KeyError to struct.error.
    except Exception as error:
        raise DecodeError(f"{prefix}: {one_line(error)}", "unreadable") from error


def check_frame_size(width: int, height: int) -> None:
    """Raise DecodeError for frames of more than MAX_FRAME_PIXELS, before any pixel is decoded."""
    if width * height > MAX_FRAME_PIXELS:
        reason = f"frames of {width}x{height} pixels; at most {MAX_FRAME_PIXELS:,} pixels are decoded"
        raise DecodeError(reason, "too-large")


def check_inflated_size(num_bytes: int) -> None:
    """Raise DecodeError for compressed data whose header declares more than MAX_INFLATED_BYTES."""
    if num_bytes > MAX_INFLATED_BYTES:
        reason = f"inflates to {num_bytes:,} bytes; at most {MAX_INFLATED_BYTES:,} bytes are inflated"
        raise DecodeError(reason, "too-large")


@contextmanager
def inflated(stream: IO[bytes], num_bytes: int, warn: Warn) -> Iterator[IO[bytes]]:
    """Copy the first `num_bytes` of a compressed stream to an unnamed temporary file, for random access.

    Raises DecodeError where the stream is shorter. See `check_end`.
    """
    with tempfile.TemporaryFile() as scratch:
        num_left = num_bytes
        while num_left:
            piece = stream.read(min(_PIECE_BYTES, num_left))
            if not piece:
                reason = (
                    f"truncated: {num_bytes - num_left} of the {num_bytes} bytes that the header declares"
                )
                raise DecodeError(reason, "truncated")
            scratch.write(piece)
            num_left -= len(piece)
        check_end(stream, warn)
        scratch.flush()
        yield scratch


def check_end(stream: IO[bytes], warn: Warn) -> None:
    """Read to the end of the declared data, where libraries compare checksums; warn of data beyond it."""
    if stream.read(1):
        warn("holds more data than its header declares: the rest is ignored")
