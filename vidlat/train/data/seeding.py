"""Random draws as pure functions of their purpose, without state.

The draws of a training item depend on `(seed, stream, step, index in the global batch)` alone, so a resumed
run repeats an uninterrupted one, and several processes repeat a single one.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

SeedKey = tuple[int, ...]
"""The identity of one item: (seed, stream, step, index)."""


class Stream(IntEnum):
    """The purpose of an item."""

    TRAINING = 0
    VALIDATION = 1
    SAMPLING = 2


class Draw(IntEnum):
    """What is drawn for one item."""

    ORDER = 0
    WINDOW = 1
    POSTERIOR = 2
    NOISE = 3
    TIMESTEP = 4
    CONDITION = 5
    FIRST_FRAME = 6
    SPAN = 7


def generator(key: SeedKey, draw: Draw) -> np.random.Generator:
    """A new counter-based generator (Philox) for one draw of one item."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, draw))))


def normal(key: SeedKey, draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 values of the given shape."""
    values = np.empty(shape, np.float32)
    fill_normal(values, key, draw)
    return values


def fill_normal(values: np.ndarray, key: SeedKey, draw: Draw) -> None:
    """Fill a contiguous float32 array with the values that `normal` returns; other threads run meanwhile."""
    generator(key, draw).standard_normal(out=values, dtype=np.float32)
