"""How a CPU process keeps its memory between two layers of a network."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library


@cache
def keep_freed_memory() -> None:
    """Tell the C library to keep freed blocks for the next allocation; where it cannot, nothing changes.

    By default it gives every large activation back to the system and takes it again for the next layer, and
    the kernel clears each page anew: that was half the time of a VAE call on a CPU. Peak memory stays.
    """
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError, TypeError):
        return  # not the GNU C library


def give_back_freed_memory() -> None:
    """Let the C library return what it keeps: a refused allocation leaves the process at its limit."""
    with suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)
