"""A set of clips as numbers: the features and figures of each, one clip in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vidlat.encode.vae import FrozenVAE
from vidlat.evaluate.samples.clips import Clip, Frames
from vidlat.evaluate.samples.frame_figures import FrameFigures
from vidlat.evaluate.samples.latent_features import latent_features
from vidlat.evaluate.samples.network_features import NetworkFeatures
from vidlat.metrics.features import Array, Features
from vidlat.train.data.latents import Whitening
from vidlat.train.objectives.conditioning import Labels

Latents = npt.NDArray[np.float32]
"""Of one clip, (L, t, h, w)."""

LATENTS = "latents"
"""Name of the features of the VAE's latents, which are always measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredClips:
    """What is known of N clips.

    features: by name, each of the same clips. figures: of the pixels of each. labels: of each.
    """

    features: dict[str, Features]
    figures: tuple[FrameFigures, ...]
    labels: tuple[Labels, ...]

    def __len__(self) -> int:
        return len(self.figures)

    @property
    def num_groups(self) -> int:
        """Subjects, or independent clips."""
        return self.features[LATENTS].num_groups

    def column(self, name: str) -> Array:
        """(N,) of a figure of `FrameFigures`."""
        return np.array([getattr(figures, name) for figures in self.figures])

    def bands(self) -> Array:
        """(N, B): the power of each band of temporal frequencies."""
        return np.array([figures.bands for figures in self.figures])


class Meter:
    """Measures clips by their whitened latents, encoded from the frames, by networks and by their pixels."""

    def __init__(self, vae: FrozenVAE, whitening: Whitening, networks: Sequence[NetworkFeatures]) -> None:
        self._vae, self._whitening, self._networks = vae, whitening, networks

    def measure(
        self, clips: Sequence[Clip], on_clip: Callable[[Latents], None] = lambda _: None
    ) -> MeasuredClips:
        """All of the clips, which are not empty; on_clip: called after each, with its whitened latents.

        Raises as reading them does.
        """
        rows: dict[str, list[Array]] = {LATENTS: [], **{network.name: [] for network in self._networks}}
        figures = []
        for clip in clips:
            frames = clip.frames()
            latents = self._latents(frames)
            rows[LATENTS].append(latent_features(latents))
            for network in self._networks:
                rows[network.name].append(network(frames))
            figures.append(FrameFigures.of(frames, self._vae.timing.frame_step))
            on_clip(latents)
        groups = np.array([clip.group for clip in clips])
        return MeasuredClips(
            features={name: Features(values=np.stack(each), groups=groups) for name, each in rows.items()},
            figures=tuple(figures),
            labels=tuple(clip.labels for clip in clips),
        )

    def _latents(self, frames: Frames) -> Latents:
        """Whitened latents (L, t, h, w) of a clip (T, H, W)."""
        pixels = torch.from_numpy(frames).float()[None, None] / 255
        vae = self._vae.with_batch(min(self._vae.batch, self._vae.timing.num_calls(len(frames))))
        mean, _ = vae.encode(pixels)
        latents: Latents = self._whitening.whiten(mean)[0].cpu().numpy()
        return latents
