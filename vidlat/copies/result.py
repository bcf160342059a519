"""Which samples are suspected to copy a training clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vidlat.copies.held_out import NEAR, HeldOut, thresholds
from vidlat.copies.search import CopySearch, Match
from vidlat.metrics.features import Array, Features
from vidlat.metrics.intervals import Estimate, estimate
from vidlat.store.reader import LatentCache
from vidlat.train.data.windows import WindowShape
from vidlat.train.runs.frozen_run import Run
from vidlat.wording import shorten

QUANTILE = 0.01
"""The share of held-out clips that are nearer to a training clip than the threshold."""

LEAST_SUBJECTS = 3
"""Held-out subjects with fewer of which nobody can say which samples are suspect copies."""

NUM_NEAREST = 5
"""Held-out videos that a result names: those nearest to a training video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """The nearest training window of each sample, beside those of held-out clips.

    A sample is a suspect copy if it is nearer to a training window than a share `quantile` of the held-out
    windows are. matches: by the name of the sample. shape: of the windows that are compared.
    """

    quantile: float
    matches: Mapping[str, Match]
    held_out: HeldOut
    shape: WindowShape

    @property
    def threshold(self) -> float:
        """The distance below which a sample is a suspect copy."""
        return self.held_out.threshold(self.quantile)

    @property
    def can_be_told(self) -> bool:
        """Whether enough held-out subjects set the threshold to say that a sample is a suspect copy."""
        return self.held_out.num_subjects >= LEAST_SUBJECTS

    def is_suspect(self, name: str) -> bool | None:
        """Whether a sample is a suspect copy; None where that cannot be told."""
        return self.matches[name].distance < self.threshold if self.can_be_told else None

    @property
    def suspects(self) -> list[str]:
        """The samples that are suspect copies, the nearest first; none where that cannot be told."""
        return [name for name in self.nearest_first() if self.is_suspect(name)]

    def nearest_first(self) -> list[str]:
        """All samples, by distance."""
        return sorted(self.matches, key=lambda name: self.matches[name].distance)

    def share(self) -> Estimate:
        """The share of suspect copies, with an interval that draws held-out subjects and samples anew.

        No value where it cannot be told.
        """
        if not self.can_be_told:
            return Estimate(value=None)
        distances = np.array([match.distance for match in self.matches.values()])
        held_out = self.held_out.distances

        def statistic(weights: Array, of_held_out: Array) -> Array:
            is_near = distances < thresholds(held_out, of_held_out, self.quantile)[:, None]
            return np.asarray((weights * is_near).sum(1) / weights.sum(1))

        return estimate(
            statistic,
            Features(values=distances[:, None], groups=np.arange(len(distances)).astype(str)),
            Features(values=held_out[:, None], groups=np.array(self.held_out.subjects)),
        ).within(0, 1)

    def conclusion(self) -> str:
        """What was found, as a sentence."""
        if not self.can_be_told:
            return f"whether samples copy training clips {self.doubt()}."
        share, num_samples, num_suspects = self.share(), len(self.matches), len(self.suspects)
        expected, found = f"{100 * self.quantile:g} %", f"{100 * num_suspects / num_samples:.1f} %"
        if share.low is not None and share.high is not None:
            found += f", {100 * share.low:.1f} to {100 * share.high:.1f} %"
        if doubt := self.doubt():
            found += f"; {doubt}"
        verb = "is" if num_suspects == 1 else "are"
        return (
            f"{num_suspects} of {num_samples} samples ({found}) {verb} nearer to a training clip than "
            f"{expected} of held-out clips are; of new samples, {expected} would be."
        )

    def doubt(self) -> str:
        """Why the share cannot be trusted, in words beside it that name no video; empty if it can."""
        num_subjects = self.held_out.num_subjects
        if not self.can_be_told:
            set_it = "subject sets" if num_subjects == 1 else "subjects set"
            return (
                f"cannot be told: only {num_subjects} held-out {set_it} the threshold, at least "
                f"{LEAST_SUBJECTS} are needed"
            )
        if self.held_out.same_recordings():
            return "uncertain: some recordings are on both sides of the split"
        if num_subjects * self.quantile < 1:
            return f"uncertain: only {num_subjects} held-out subjects set the threshold"
        return ""

    def share_in_words(self) -> str:
        """The share in percent with its interval, and why it cannot be trusted where it cannot."""
        doubt = self.doubt()
        if not self.can_be_told:
            return doubt
        return self.share().in_words(100) + (f", {doubt}" if doubt else "")

    def warnings(self) -> list[str]:
        """What makes it uncertain, as sentences."""
        num_windows, num_subjects = len(self.held_out.distances), self.held_out.num_subjects
        enough = f"for {100 * self.quantile:g} % at least {math.ceil(1 / self.quantile)} are needed."
        warnings = []
        if same := self.held_out.same_recordings():
            warnings.append(
                f"Copies: held out and nearer than {NEAR} to a training clip: {shorten(same)}; the same "
                "recordings are on both sides of the split, so the threshold is too low."
            )
        if not self.can_be_told:  # the conclusion says why
            return warnings
        if num_windows * self.quantile < 1:
            warnings.append(
                f"Copies: the nearest of {num_windows} held-out clips sets the threshold; {enough}"
            )
        elif num_subjects * self.quantile < 1:
            warnings.append(
                f"Copies: a few of {num_subjects} subjects of all held-out clips set the threshold; {enough}"
            )
        return warnings

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `frame` is the first frame of a window, in its video.

        Where it cannot be told which samples are suspect copies, `is_suspect` and `share` have no value.
        """
        return {
            "quantile": self.quantile,
            "threshold": self.threshold,
            "share": self.share().to_dict() | {"doubt": self.doubt()},
            "nearest": [
                {
                    "sample": name,
                    "distance": match.distance,
                    "is_suspect": self.is_suspect(name),
                    "sample_frame": self.frame_of(match.clip_start),
                    "video_id": match.video_id,
                    "frame": self.frame_of(match.place.start),
                }
                for name, match in self.matches.items()
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
        return self.shape.timing.frame_at(latent_frame)

    @property
    def num_frames(self) -> int:
        """Video frames of a window."""
        return self.shape.timing.frames_of(self.shape.num_stacks)


def find_copies(
    samples: Mapping[str, Mapping[str, Tensor]],
    run: Run,
    cache: LatentCache,
    *,
    quantile: float = QUANTILE,
    device: str = "cpu",
    on_progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Copies]:
    """The training clip nearest to each sample of a run, and which samples are suspect copies; by set.

    samples: of each set whitened latents (L, t, h, w) by name, all of one length. The cache must be the run's
    own (`require_same_videos`); it is read once. device: where the search computes. on_progress: called with
    the share of the search that was done since. Raises TrainError for a run that holds no videos out,
    StoreError for latents that are missing or damaged.
    """
    clips = [clip for each in samples.values() for clip in each.values()]
    search = CopySearch(run, cache, clips[0].shape[1], device=device)
    matches, held_out = search.nearest_and_held_out(clips, on_progress)
    left = iter(matches)
    return {
        name: Copies(
            quantile=quantile,
            matches={sample: next(left) for sample in each},
            held_out=held_out,
            shape=search.windows.shape,
        )
        for name, each in samples.items()
    }
