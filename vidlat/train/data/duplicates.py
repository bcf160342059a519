"""Which held-out videos are nearly the same as a training video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from vidlat.store.reader import LatentCache
from vidlat.train.data.latents import Whitening
from vidlat.train.data.nearest import NearestRows
from vidlat.types import VideoRecord

NEAR = 0.2
"""Root mean square difference of whitened latents below which two videos count as copies of each other.

Among 57 lung and heart clips, copies in ten codecs differ by at most 0.013, a copy with a misread range of
gray levels by 0.14, and any two other clips by at least 0.33.
"""

SIGNATURE_FRAMES, SIGNATURE_SIDE = 4, 16
READ_AT_ONCE = 512


def near_duplicates(
    cache: LatentCache,
    training: Sequence[VideoRecord],
    validation: Sequence[VideoRecord],
    whitening: Whitening,
) -> list[tuple[str, str]]:
    """Pairs of a validation video and the nearest training video, if their starts are nearly the same.

    Compares the posterior means of the first frames, averaged over time and to at most 16 x 16 positions.
    Reads one window per video.
    """
    if not training or not validation:
        return []
    search = NearestRows(torch.cat(list(_signatures(cache, validation, whitening))))
    for signatures in _signatures(cache, training, whitening):
        search.add(signatures)
    mean_squared = search.squared / signatures.shape[1]
    return [
        (validation[row].video_id, training[int(search.index[row])].video_id)
        for row in (mean_squared < NEAR**2).nonzero().flatten().tolist()
    ]


def _signatures(
    cache: LatentCache, records: Sequence[VideoRecord], whitening: Whitening
) -> Iterator[torch.Tensor]:
    """Blocks (N, L * h * w) float32, one row per video."""
    starts = np.array([record.start for record in records])
    for first in range(0, len(starts), READ_AT_ONCE):
        mean, _ = cache.read_windows(starts[first : first + READ_AT_ONCE], SIGNATURE_FRAMES, with_std=False)
        still = whitening.whiten(torch.from_numpy(mean).float()).mean(2)
        side = -(-max(still.shape[2:]) // SIGNATURE_SIDE)
        yield functional.avg_pool2d(still, side).flatten(1)
