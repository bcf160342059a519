"""Clips of latents and the training window that each is nearest to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidlat.copies.held_out import HeldOut, held_out_places
from vidlat.copies.training_windows import Place, TrainingWindows
from vidlat.store.reader import LatentCache
from vidlat.train.data.windows import WindowShape
from vidlat.train.runs.frozen_run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The training window nearest to a clip.

    distance: of their signatures, from 0 to 2. clip_start: the latent frame of the clip at which its window
    starts; 0 unless it is longer than a training clip.
    """

    distance: float
    place: Place
    clip_start: int

    @property
    def video_id(self) -> str:
        """The training video."""
        return self.place.record.video_id


class CopySearch:
    """Compares clips of a given length with all windows of a run's training videos.

    num_latent_frames: those of a clip; by default a training clip's. A longer clip is compared by each of its
    windows, a shorter one with shorter windows. device: where it computes. The cache must be the run's own
    (`require_same_videos`). Raises StoreError for latents that are missing or damaged.
    """

    def __init__(
        self, run: Run, cache: LatentCache, num_latent_frames: int | None = None, *, device: str = "cpu"
    ) -> None:
        self._run, self._cache, shape = run, cache, run.window_shape()
        if num_latent_frames is not None:
            in_clip = 1 + (num_latent_frames - shape.stack_length) // shape.timing.latent_step
            shape = WindowShape(num_stacks=min(shape.num_stacks, in_clip), timing=shape.timing)
        self.windows = TrainingWindows(run, cache, shape, torch.device(device))

    def nearest(
        self, clips: Sequence[Tensor], on_progress: Callable[[float], None] = lambda _: None
    ) -> list[Match]:
        """The nearest training window of each clip of whitened latents (L, t, h, w).

        on_progress: called with the share of the search that was done since.
        """
        return self._nearest(clips, [], on_progress)[0]

    def calibrate(self, on_progress: Callable[[float], None] = lambda _: None) -> HeldOut:
        """The distances of held-out windows. Raises TrainError for a run without any."""
        return self.nearest_and_held_out([], on_progress)[1]

    def nearest_and_held_out(
        self, clips: Sequence[Tensor], on_progress: Callable[[float], None] = lambda _: None
    ) -> tuple[list[Match], HeldOut]:
        """Both, in one search."""
        places = held_out_places(self._run, self._cache, self.windows.shape)
        matches, distances = self._nearest(clips, places, on_progress)
        subjects = self._run.subjects(self._cache)
        held_out = HeldOut(
            distances=distances,
            places=tuple(places),
            subjects=tuple(subjects[record.video_id] for record, _ in places),
            left_out=tuple(self._run.duplicated),
        )
        return matches, held_out

    def _nearest(
        self, clips: Sequence[Tensor], places: Sequence[Place], on_progress: Callable[[float], None]
    ) -> tuple[list[Match], np.ndarray]:
        """The match of each clip, and the distances (M,) of windows of the cache."""
        shape = self.windows.shape
        length, step = shape.num_latent_frames, shape.timing.latent_step
        starts = [range(0, clip.shape[1] - length + 1, step) for clip in clips]
        queries = [
            self.windows.signatures_of(torch.stack([clip[:, start : start + length] for start in of_clip]))
            for clip, of_clip in zip(clips, starts, strict=True)
        ]
        if places:
            queries.append(self.windows.signatures_at(places))
        distances, numbers = self.windows.nearest(torch.cat(queries), on_progress)
        matches, first = [], 0
        for of_clip in starts:
            best = int(distances[first : first + len(of_clip)].argmin())
            matches.append(
                Match(
                    distance=float(distances[first + best]),
                    place=self.windows.place(int(numbers[first + best])),
                    clip_start=of_clip[best],
                )
            )
            first += len(of_clip)
        return matches, distances[first:]
