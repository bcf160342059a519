"""The held-out clips of a VAE's training, and how close the averaged weights come to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.config import ChosenFit, LatentSettings
from vidlat.encode.device import resolve_batch
from vidlat.encode.vae import load_vae
from vidlat.evaluate.clip import measure_clip
from vidlat.evaluate.quality import Summary, VideoQuality, summarise
from vidlat.pipeline.decode_videos import to_gray_levels
from vidlat.video.writer import write_gif

Frames = npt.NDArray[np.float32]

NUM_CLIPS = 12
"""Held-out clips of a validation, evenly over the subjects."""

MOST_FRAMES = 32
"""Frames of a clip, from its first on: with few, a clip may be validated whole."""

NUM_SHOWN = 4
"""Clips whose reconstructions are shown."""


class HeldOutClips:
    """Clips that are encoded and decoded with weights from a file, as `vidlat compare` would.

    settings: of the training, whose stacks are those of the VAE calls, without overlap.
    """

    def __init__(self, settings: ChosenFit, device: str) -> None:
        self._settings, self._device = settings, device
        self._clips: dict[str, Frames] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, video_id: str, frames: Frames) -> None:
        """Add a clip of frames (T, H, W) in [0, 1]."""
        self._clips[video_id] = frames

    def measure(self, weights: Path, picture: Path) -> Summary:
        """The figures of a weights file, all clips with the same weight; writes what they look like.

        picture: a GIF of some clips, their reconstructions below them. Raises VidlatError where the weights
        give frames that are not finite.
        """
        settings = LatentSettings(stack=self._settings.stack, precision=self._settings.precision)
        batch = resolve_batch(0, self._device)
        vae = load_vae(weights, settings, batch=batch, device=self._device)
        figures: list[VideoQuality] = []
        shown: list[tuple[Frames, Frames]] = []
        for video_id, frames in self._clips.items():
            quality, decoded, _ = measure_clip(vae, video_id, frames)
            figures.append(quality)
            if len(shown) < NUM_SHOWN:
                shown.append((frames, decoded))
        write_gif(picture, to_gray_levels(_side_by_side(shown)), 0.0)
        return summarise(figures)


def _side_by_side(pairs: list[tuple[Frames, Frames]]) -> Frames:
    """Sources above their reconstructions, (T, 2 * H, N * W); a shorter clip keeps its last frame."""
    length = max(len(source) for source, _ in pairs)
    columns = [np.concatenate(pair, axis=1) for pair in pairs]
    return np.concatenate([column[np.minimum(range(length), len(column) - 1)] for column in columns], axis=2)
