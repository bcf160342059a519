"""Which samples are suspected to copy a training clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vidlat.copies.held_out import HeldOut, thresholds
from vidlat.copies.search import CopySearch, Match
from vidlat.metrics.features import Array, Features
from vidlat.metrics.intervals import Estimate, estimate
from vidlat.store.reader import LatentCache
from vidlat.timing import Timing
from vidlat.train.frozen_run import Run

QUANTILE = 0.01
"""The share of held-out clips that are nearer to a training clip than the threshold."""

NUM_NEAREST = 5
"""Held-out videos that a result names: those nearest to a training video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """The nearest training window of each sample, beside those of held-out clips.

    A sample is a suspect copy if it is nearer to a training window than a share `quantile` of the held-out
    windows are. timing: of the cache.
    """

    quantile: float
    matches: tuple[Match, ...]
    held_out: HeldOut
    timing: Timing

    @property
    def threshold(self) -> float:
        """The distance below which a sample is a suspect copy."""
        return self.held_out.threshold(self.quantile)

    @property
    def suspects(self) -> list[int]:
        """The indices of the samples that are suspect copies, the nearest first."""
        threshold = self.threshold
        return [index for index in self.nearest_first() if self.matches[index].distance < threshold]

    def nearest_first(self) -> list[int]:
        """The indices of all samples, by distance."""
        return sorted(range(len(self.matches)), key=lambda index: self.matches[index].distance)

    def share(self) -> Estimate:
        """The share of suspect copies, with an interval that draws held-out subjects and samples anew."""
        distances, held_out = np.array([match.distance for match in self.matches]), self.held_out.distances

        def statistic(weights: Array, of_held_out: Array) -> Array:
            is_near = distances < thresholds(held_out, of_held_out, self.quantile)[:, None]
            return np.asarray((weights * is_near).sum(1) / weights.sum(1))

        found = estimate(
            statistic,
            Features(values=distances[:, None], groups=np.arange(len(distances)).astype(str)),
            Features(values=held_out[:, None], groups=np.array(self.held_out.subjects)),
        )
        if found.low is None or found.high is None:
            return found
        return Estimate(value=found.value, low=max(found.low, 0.0), high=min(found.high, 1.0))

    def sentences(self) -> list[str]:
        """What was found, in sentences, with what makes it uncertain."""
        share, held_out = self.share(), self.held_out
        num_windows, num_subjects = len(held_out.distances), held_out.num_subjects
        assert share.value is not None
        interval = ""
        if share.low is not None and share.high is not None:
            interval = f", 95 % interval {100 * share.low:.1f} to {100 * share.high:.1f} %"
        percent = f"{100 * self.quantile:g} %"
        lines = [
            f"{len(self.suspects)} of {len(self.matches)} samples ({100 * share.value:.1f} %{interval}) are "
            f"nearer to a training clip than {percent} of held-out clips; of new samples {percent} would be"
        ]
        if num_windows * self.quantile < 1:
            lines.append(
                f"the threshold is the nearest of {num_windows} held-out clips: {percent} needs "
                f"{np.ceil(1 / self.quantile):.0f}"
            )
        elif num_subjects * self.quantile < 1:
            lines.append(
                f"the threshold rests on the nearest few of {num_subjects} held-out subjects: with "
                f"{np.ceil(1 / self.quantile):.0f} it would not depend on a single one"
            )
        if held_out.left_out:
            lines.append(
                f"{len(held_out.left_out)} held-out videos nearly equal training videos and do not count: "
                f"{', '.join(held_out.left_out[:NUM_NEAREST])}"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `frame` is the first frame of a window, in its video."""
        threshold = self.threshold
        return {
            "quantile": self.quantile,
            "threshold": threshold,
            "share": self.share().to_dict(),
            "nearest": [
                {
                    "sample": index,
                    "distance": match.distance,
                    "is_suspect": match.distance < threshold,
                    "sample_frame": self.frame_of(match.clip_start),
                    "video_id": match.video_id,
                    "frame": self.frame_of(match.place.start),
                }
                for index, match in enumerate(self.matches)
            ],
            "held_out": {
                "windows": len(self.held_out.distances),
                "videos": len({place.record.video_id for place in self.held_out.places}),
                "subjects": self.held_out.num_subjects,
                "left_out": list(self.held_out.left_out),
                "nearest": [
                    {"video_id": video_id, "distance": distance}
                    for video_id, distance in self.nearest_held_out()
                ],
            },
        }

    def nearest_held_out(self) -> list[tuple[str, float]]:
        """The held-out videos nearest to a training window, each with its least distance."""
        least: dict[str, float] = {}
        for place, distance in zip(self.held_out.places, self.held_out.distances.tolist(), strict=True):
            video_id = place.record.video_id
            least[video_id] = min(distance, least.get(video_id, np.inf))
        return sorted(least.items(), key=lambda item: item[1])[:NUM_NEAREST]

    def frame_of(self, latent_frame: int) -> int:
        """The video frame at which a VAE call starts, by the latent frame at which it starts."""
        return latent_frame // self.timing.latent_step * self.timing.frame_step


def find_copies(
    samples: Sequence[Tensor],
    run: Run,
    cache: LatentCache,
    *,
    quantile: float = QUANTILE,
    device: str = "cpu",
    on_progress: Callable[[float], None] = lambda _: None,
) -> Copies:
    """The training clip nearest to each sample of a run, and which samples are suspect copies.

    samples: whitened latents (L, t, h, w) of one length. The cache must be the run's own
    (`require_same_videos`); it is read once. device: where the search computes. on_progress: called with the
    share of the search that was done since. Raises TrainError for a run that holds no videos out, StoreError
    for latents that are missing or damaged.
    """
    search = CopySearch(run, cache, samples[0].shape[1] if samples else None, device=device)
    matches, held_out = search.nearest_and_held_out(samples, on_progress)
    return Copies(quantile=quantile, matches=tuple(matches), held_out=held_out, timing=cache.schema.timing)
