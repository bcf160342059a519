"""Random draws as a pure function of what they are for: no state, no order, no rank.

A training item's draws follow from `(seed, stream, step, index in the global batch)` alone, so a resumed
run repeats an uninterrupted one and two processes repeat one.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

SeedKey = tuple[int, ...]
"""What identifies one item: (seed, stream, step, index)."""


class Stream(IntEnum):
    """What a run draws items for."""

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
    GIVEN = 6


def generator(key: SeedKey, draw: Draw) -> np.random.Generator:
    """A fresh counter-based generator (Philox) for one draw of one item."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, draw))))


def normal(key: SeedKey, draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 values of the given shape."""
    return generator(key, draw).standard_normal(shape, dtype=np.float32)
