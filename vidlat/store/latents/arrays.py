"""The two arrays of a cache, read by name and place on the time axis, wherever their shards are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Latents = npt.NDArray[np.float16]
Frames = npt.NDArray[np.int64] | slice
"""Places on the time axis: indices of any shape, or a slice with a start and a stop."""


class LatentArrays(Protocol):
    """The arrays of a cache. Latents that were never written, or are missing, read as NaN."""

    def start_reading(self, name: str, frames: Frames) -> Callable[[], Latents]:
        """Start to read latent frames of the array `name`; the returned function waits for them.

        It returns them as (*, L, h, w), * being the shape of the indices or the length of the slice, and
        raises ValueError if their bytes are damaged, StoreError if they cannot be read.
        """

    def wrong_shard(self, name: str, shard: int) -> str:
        """What is in place of the file of a shard, if it cannot be read at all; empty otherwise."""

    def has_shard(self, name: str, shard: int) -> bool:
        """Whether there is a file of a shard."""
