"""The fastest number of threads: where others compute on the same cores, with fewer than those."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch

from vidlat.resources import num_cores
from vidlat.wording import format_count

FEWEST_STEPS = 50
"""Fewest steps, of a training or over all samples, for which numbers are tried: a trial takes about ten."""

MARGIN = 1.25
"""How many times as fast as with all cores another number must be.

It changes the last bits of sums, and where the machine is idle, each start of a run is to have the same one.
"""

MOST_PASSES, ENOUGH_SECONDS = 3, 1.0
"""Passes are timed until there are so many of them, or they took so long; the fastest counts."""


def seconds_by_threads(compute: Callable[[], object]) -> dict[int, float]:
    """The seconds of a step by the number of threads that torch has; leaves torch with the last one tried."""

    def seconds_with(num_threads: int) -> float:
        torch.set_num_threads(num_threads)
        return least_seconds(compute)

    return try_threads(seconds_with, num_cores())


def try_threads(seconds_with: Callable[[int], float], most: int) -> dict[int, float]:
    """The seconds of a step by the number of threads: of `most`, its half and so on, while it gets faster."""
    tried: dict[int, float] = {}
    number, before = most, math.inf
    while number:
        tried[number] = seconds_with(number)
        if tried[number] >= before:
            break
        number, before = number // 2, tried[number]
    return tried


def fastest(tried: Mapping[int, float]) -> int:
    """The number of threads to compute with: the most that were tried, unless another is faster by MARGIN."""
    most, best = max(tried), min(tried, key=tried.__getitem__)
    return best if tried[most] > MARGIN * tried[best] else most


def in_words(tried: Mapping[int, float]) -> str:
    """Such as `a step takes 3.52 s with 2 threads, 0.54 s with 1`."""
    (first, seconds), *others = tried.items()
    named = f"{seconds:.2f} s with {format_count(first, 'thread')}"
    return "a step takes " + ", ".join([named, *(f"{each:.2f} s with {number}" for number, each in others)])


def least_seconds(compute: Callable[[], object]) -> float:
    """The seconds that a call takes at best, after one that warms up."""
    compute()
    seconds: list[float] = []
    while len(seconds) < MOST_PASSES and sum(seconds) < ENOUGH_SECONDS:
        began = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
