"""Windows of a cache as clips, which have gone through the VAE as samples have; and noise like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from vidlat.copies.training_windows import Place
from vidlat.encode.vae import FrozenVAE
from vidlat.evaluate.samples.clips import Clip, Frames
from vidlat.pipeline.decode_videos import decode_latents, to_gray_levels
from vidlat.store.reader import LatentCache
from vidlat.train.data.windows import WindowShape, window_places
from vidlat.train.objectives.conditioning import Labels
from vidlat.types import VideoRecord
from vidlat.video.contact_sheet import evenly_spaced

Array = npt.NDArray[np.float64]


def spread_windows(records: Sequence[VideoRecord], shape: WindowShape, num: int) -> list[Place]:
    """Up to `num` windows of whole stacks of real frames: evenly over the videos, then over each of them.

    Fewer where the videos have no more; none of a video shorter than a window. In each video they are drawn,
    so that few windows do not all begin with frame 0; which ones depends on the video and their number alone.
    """
    starts = {
        record.video_id: window_places(record, shape)
        for record in records
        if shape.timing.num_whole_calls(record.num_frames) >= shape.num_stacks
    }
    counts = dict.fromkeys(starts, 0)
    while free := [video_id for video_id, count in counts.items() if count < len(starts[video_id])]:
        left = num - sum(counts.values())
        if not left:
            break
        for place in evenly_spaced(len(free), left):
            counts[free[place]] += 1
    return [
        Place(record, starts[record.video_id][number])
        for record in records
        if record.video_id in starts
        for number in _drawn_evenly(len(starts[record.video_id]), counts[record.video_id], record.video_id)
    ]


def _drawn_evenly(num_places: int, num: int, key: str) -> list[int]:
    """`num` different places at equal distances, each place as likely as any other: a systematic sample."""
    shift = int(np.random.default_rng(list(key.encode())).integers(num_places))
    return [(number * num_places + shift) // num for number in range(num)]


class RealClips:
    """Windows of a cache as clips of `num_frames` frames, decoded by the VAE."""

    def __init__(self, cache: LatentCache, vae: FrozenVAE, shape: WindowShape, num_frames: int) -> None:
        self._cache, self._vae, self._shape, self._num_frames = cache, vae, shape, num_frames

    def clips(
        self, windows: Sequence[Place], subjects: Mapping[str, str], labels: Mapping[str, Labels]
    ) -> list[Clip]:
        """subjects, labels: by video id."""
        return [
            Clip(
                name=f"{window.record.video_id} from frame {self._shape.timing.frame_at(window.start)}",
                group=f"subject {subjects[window.record.video_id]}",
                labels=labels.get(window.record.video_id, {}),
                frames=partial(self._frames, window),
            )
            for window in windows
        ]

    def latents(self, window: Place) -> npt.NDArray[np.float32]:
        """The posterior mean (L, t, h, w) of a window."""
        start = np.array([window.record.start + window.start])
        mean, _ = self._cache.read_windows(start, self._shape.num_latent_frames, with_std=False)
        latents: npt.NDArray[np.float32] = mean[0].astype(np.float32)
        return latents

    def noise(self, windows: Sequence[Place], num: int, seed: int) -> list[Clip]:
        """Clips of white noise whose channels have the mean and the covariance of the windows' latents."""
        mean, root = self._moments(windows)
        shape = self.latents(windows[0]).shape

        return [
            Clip(
                name=f"noise {number}",
                group=f"noise {number}",
                labels={},
                frames=partial(self._noise, mean, root, shape, (seed, number)),
            )
            for number in range(num)
        ]

    def _frames(self, window: Place) -> Frames:
        return self._decode(self.latents(window))

    def _noise(self, mean: Array, root: Array, shape: tuple[int, ...], seed: tuple[int, int]) -> Frames:
        noise = np.random.default_rng(seed).standard_normal(shape)
        mixed = np.einsum("ij,jthw->ithw", root, noise) + mean[:, None, None, None]
        return self._decode(mixed.astype(np.float32))

    def _moments(self, windows: Sequence[Place]) -> tuple[Array, Array]:
        """Mean (L,) of the channels, and a square root (L, L) of their covariance."""
        num_channels = self._cache.schema.latent_dim
        count, total, products = 0, np.zeros(num_channels), np.zeros((num_channels, num_channels))
        for window in windows:
            by_channel = self.latents(window).reshape(num_channels, -1).astype(np.float64)
            count += by_channel.shape[1]
            total += by_channel.sum(1)
            products += by_channel @ by_channel.T
        mean = total / count
        values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
        return mean, vectors * np.sqrt(values.clip(0))

    def _decode(self, latents: npt.NDArray[np.float32]) -> Frames:
        return to_gray_levels(decode_latents(self._vae, latents, self._num_frames))
