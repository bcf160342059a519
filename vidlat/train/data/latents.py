"""From cached latents to those a network learns, and back: whiten, unwhiten.

Shape letters: B items, L latent channels, t latent frames, h and w latent height and width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch

from vidlat.documents import Fields
from vidlat.errors import TrainError
from vidlat.types import VideoRecord

MAX_LATENT, MIN_SCALE = 1e6, 1e-30
"""Bounds of a whitening that no cache of float16 latents leaves."""

Latents = TypeVar("Latents", np.ndarray, torch.Tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitening:
    """Mean and standard deviation (scale) of each latent channel over the training videos."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def from_records(cls, records: Iterable[VideoRecord], latents_as: Literal["sample", "mean"]) -> Self:
        """Compute it from the float64 sums in the records, without reading a latent.

        latents_as: "sample" for draws from the posterior, whose variance is Var[mean] + E[std^2]; "mean" for
        its means, whose variance is Var[mean]. Raises TrainError for records without values.
        """
        records = list(records)
        count = sum(record.latents.count for record in records)
        if count == 0:
            raise TrainError("the records of the training videos count no latent values; encode them again")
        mean = np.sum([record.latents.sum_mean for record in records], axis=0) / count
        mean_squared = np.sum([record.latents.sum_mean_squared for record in records], axis=0) / count
        std_squared = np.sum([record.latents.sum_std_squared for record in records], axis=0) / count
        variance = mean_squared - mean**2
        # Within the rounding of this difference a channel is constant: it is centred, not scaled.
        variance = np.where(variance > 1e-12 * mean_squared, variance, 0.0)
        if latents_as == "sample":
            variance = variance + std_squared
        scale = np.where(variance > 0, np.sqrt(variance), 1.0)
        return cls(mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))

    @classmethod
    def from_fields(cls, fields: Fields, num_channels: int) -> Self:
        """The inverse of `to_dict`; raises ValueError for what is no whitening of so many channels."""
        return cls(
            mean=fields.numbers("mean", num_channels, -MAX_LATENT, MAX_LATENT),
            scale=fields.numbers("scale", num_channels, MIN_SCALE, MAX_LATENT),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    def whiten(self, latents: Latents) -> Latents:
        """Bring latents (..., L, t, h, w) to zero mean and unit variance per channel."""
        whitened: Latents = (latents - self._column(self.mean, latents)) / self._column(self.scale, latents)
        return whitened

    def whiten_in_place(self, latents: np.ndarray) -> None:
        """The same values as `whiten` returns, in the array itself."""
        latents -= self._column(self.mean, latents)
        latents /= self._column(self.scale, latents)

    def unwhiten(self, whitened: Latents) -> Latents:
        """The inverse of `whiten`; its result is what the VAE decodes."""
        latents: Latents = whitened * self._column(self.scale, whitened) + self._column(self.mean, whitened)
        return latents

    @staticmethod
    def _column(values: tuple[float, ...], like: Latents) -> Latents:
        column = np.array(values, like.dtype) if isinstance(like, np.ndarray) else like.new_tensor(values)
        return column[:, None, None, None]
