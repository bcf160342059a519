"""Memory for a network: kept between its layers on a CPU, and smaller calls where it does not suffice."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from vidlat.errors import NotEnoughMemoryError, is_out_of_memory

if TYPE_CHECKING:
    import torch  # not otherwise: a process that only reads videos does without it

T = TypeVar("T")

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


def within_memory(call: Callable[[], T], device: torch.device, refusal: str) -> T:
    """What a call returns; raises NotEnoughMemoryError, with that message, where memory does not suffice."""
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler: inside it, the error's traceback keeps every activation of the call alive.
    release_freed_memory(device)
    raise NotEnoughMemoryError(refusal)


class ShrinkingCalls:
    """Calls on as many items at once as memory suffices for.

    Where it does not, the same items go into calls of half as many, and so do those of all later calls.
    """

    def __init__(self) -> None:
        self._most_items = sys.maxsize

    def __call__(self, call: Callable[[slice], T], num_items: int, at_most: int = sys.maxsize) -> list[T]:
        """What the calls return, in order, each for a slice of `at_most` items, or fewer.

        Raises the NotEnoughMemoryError of a call on a single item.
        """
        size = min(num_items, at_most, self._most_items)
        try:
            return [call(slice(start, start + size)) for start in range(0, num_items, size)]
        except NotEnoughMemoryError:
            if size == 1:
                raise
        self._most_items = -(-size // 2)
        return self(call, num_items, at_most)


def release_freed_memory(device: torch.device) -> None:
    """Return kept blocks to the system, and to the driver of a GPU, after an allocation has failed there."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)
