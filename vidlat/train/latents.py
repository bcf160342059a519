"""From the cached posterior to what the network learns, and back: draw, whiten, unwhiten.

Shape letters: B items, L latent channels, t latent frames, h and w latent height and width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch

from vidlat.errors import TrainError
from vidlat.types import VideoRecord

Latents = TypeVar("Latents", np.ndarray, torch.Tensor)


def draw_posterior(mean: np.ndarray, std: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A draw from the VAE's posterior, `mean + std * noise`; `std` is a standard deviation."""
    drawn: np.ndarray = mean + std * noise
    return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitening:
    """Mean and scale of each latent channel over the training split."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def from_records(cls, records: Iterable[VideoRecord], latents_as: Literal["sample", "mean"]) -> Self:
        """From the exact float64 sums of the records, without reading a latent.

        The variance of a posterior draw is Var[mean] + E[std^2], that of the posterior mean Var[mean].
        """
        records = list(records)
        count = sum(record.latents.count for record in records)
        if count == 0:
            raise TrainError("the training videos' records count no latent values; encode them again")
        mean = np.sum([record.latents.sum_mean for record in records], axis=0) / count
        mean_squared = np.sum([record.latents.sum_mean_squared for record in records], axis=0) / count
        std_squared = np.sum([record.latents.sum_std_squared for record in records], axis=0) / count
        variance = mean_squared - mean**2
        # The difference of two float64 sums: below their rounding a channel is constant, and is only centred.
        variance = np.where(variance > 1e-12 * mean_squared, variance, 0.0)
        if latents_as == "sample":
            variance = variance + std_squared
        scale = np.where(variance > 0, np.sqrt(variance), 1.0)
        return cls(mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(mean=tuple(values["mean"]), scale=tuple(values["scale"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def whiten(self, latents: Latents) -> Latents:
        """Cached latents (..., L, t, h, w) to zero mean and unit variance a channel."""
        whitened: Latents = (latents - self._column(self.mean, latents)) / self._column(self.scale, latents)
        return whitened

    def unwhiten(self, whitened: Latents) -> Latents:
        """The inverse of `whiten`: what the VAE's decoder takes."""
        latents: Latents = whitened * self._column(self.scale, whitened) + self._column(self.mean, whitened)
        return latents

    @staticmethod
    def _column(values: tuple[float, ...], like: Latents) -> Latents:
        column = np.array(values, like.dtype) if isinstance(like, np.ndarray) else like.new_tensor(values)
        return column[:, None, None, None]
