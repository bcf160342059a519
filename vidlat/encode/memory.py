"""Keeping freed memory in the process between the layers of a network on a CPU."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # not otherwise: a process that only reads videos does without it

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h of the GNU C library


@cache
def keep_freed_memory() -> None:
    """Make the GNU C library keep freed blocks for the next allocation; other libraries are left as they are.

    By default it returns each large activation to the system and requests memory again for the next layer,
    and the kernel clears every page: half the time of a VAE call on a CPU. Peak memory does not change. All
    threads share one arena: a block of over 64 MiB fits into no arena of a thread's own, and is never kept.
    """
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError, TypeError):
        return  # not the GNU C library


def release_freed_memory(device: torch.device) -> None:
    """Return kept blocks to the system, and to the driver of a GPU, after an allocation has failed there."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)
