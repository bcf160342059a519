"""How the latents of a cache are distributed, channel by channel, and how far that is from a standard
normal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from vidlat.errors import StoreError
from vidlat.report.bins import count_in_bins
from vidlat.store.reader import LatentCache
from vidlat.train.data.latents import Whitening
from vidlat.video.contact_sheet import evenly_spaced

MOST_VIDEOS, MOST_LATENT_FRAMES = 400, 16
"""Videos that are read, evenly spread, and latent frames of each, from its middle: minutes become seconds."""

BINS = np.linspace(-6, 6, 241)
"""Edges of the bins, in standard deviations from the mean; what lies beyond is in the outermost."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """The posterior means of one latent channel.

    mean, std: over all videos, exact. posterior_std: the root mean square of the VAE's own standard
    deviations. The rest is of the videos read: skewness and excess_kurtosis are 0 for a normal distribution
    and None for a constant; distance: the largest difference of the shares of values below any point from
    those of a standard normal (Kolmogorov and Smirnov's, from 0 to 1); distance_whitened: the same after
    whitening by mean and std; shares: of the values in each of the BINS.
    """

    mean: float
    std: float
    posterior_std: float
    skewness: float | None
    excess_kurtosis: float | None
    distance: float
    distance_whitened: float
    shares: Array


class LatentShape:
    """Sums over latents, added video by video, in bounded memory.

    damaged: by id, why a video is left out. num_videos: that were read.
    """

    def __init__(self, cache: LatentCache) -> None:
        self.damaged: dict[str, str] = {}
        self.num_videos = 0
        self._cache = cache
        # By the sums of all videos, as a training would whiten them.
        self._whitening = Whitening.from_records(cache.records().values(), "mean")
        self._counts = np.zeros((cache.schema.latent_dim, len(BINS) - 1))
        self._powers = np.zeros((cache.schema.latent_dim, 4))

    @property
    def num_to_read(self) -> int:
        """Videos that `read` goes through."""
        return min(len(self._cache), MOST_VIDEOS)

    def read(self) -> Iterator[str]:
        """Read the latents, and yield the id of each video that was read or is left out."""
        records = list(self._cache.records().values())
        num_positions = self._cache.schema.latent_height * self._cache.schema.latent_width
        for record in (records[index] for index in evenly_spaced(len(records), MOST_VIDEOS)):
            num_unpadded = record.latents.count // num_positions
            num_read = min(num_unpadded, MOST_LATENT_FRAMES)
            start = record.start + (num_unpadded - num_read) // 2
            try:
                mean, _ = self._cache.read_windows(np.array([start]), num_read, with_std=False)
            except StoreError as error:
                self.damaged[record.video_id] = str(error)
            else:
                self._add(self._whitening.whiten(mean[0].astype(np.float64)))
                self.num_videos += 1
            yield record.video_id

    def _add(self, whitened: Array) -> None:
        for channel, values in enumerate(whitened):
            self._counts[channel] += count_in_bins(values.ravel(), BINS)
            self._powers[channel] += [np.power(values, power).sum() for power in (1, 2, 3, 4)]

    def channels(self) -> list[Channel]:
        """The figures of each channel; none if no video was read."""
        if not self.num_videos:
            return []
        latents = [record.latents for record in self._cache.records().values()]
        count = sum(each.count for each in latents)
        mean = np.sum([each.sum_mean for each in latents], axis=0) / count
        squares = np.sum([each.sum_mean_squared for each in latents], axis=0) / count
        posterior_squares = np.sum([each.sum_std_squared for each in latents], axis=0) / count
        stds = np.sqrt(np.maximum(squares - mean**2, 0)).tolist()
        posterior_stds = np.sqrt(posterior_squares).tolist()
        return [
            self._channel(number, *both) for number, both in enumerate(zip(stds, posterior_stds, strict=True))
        ]

    def _channel(self, number: int, std: float, posterior_std: float) -> Channel:
        mean, scale = self._whitening.mean[number], self._whitening.scale[number]  # 1 for a constant
        shares = self._counts[number] / self._counts[number].sum()
        first, second, third, fourth = self._powers[number] / self._counts[number].sum()
        variance = second - first**2
        skewness = third - 3 * first * second + 2 * first**3
        kurtosis = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        below = np.cumsum(shares)[:-1]
        inner = BINS[1:-1]
        return Channel(
            mean=mean,
            std=std,
            posterior_std=posterior_std,
            skewness=float(skewness / variance**1.5) if variance > 0 else None,
            excess_kurtosis=float(kurtosis / variance**2 - 3) if variance > 0 else None,
            distance=float(np.abs(below - ndtr(inner * scale + mean)).max()),
            distance_whitened=float(np.abs(below - ndtr(inner)).max()),
            shares=shares,
        )
