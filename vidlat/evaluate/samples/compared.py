"""Which clips samples are compared with: held-out and training windows of a run, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from vidlat.copies.training_windows import Place
from vidlat.errors import InputError
from vidlat.evaluate.samples.real_clips import spread_windows
from vidlat.store.reader import LatentCache
from vidlat.train.runs.frozen_run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedWindows:
    """Windows of held-out videos, the reference, and of training videos. subjects: by video id.

    left_out: held-out videos that nearly equal a training video, as the run found when it started: samples
    that copy patients would be near them.
    """

    held_out: Sequence[Place]
    training: Sequence[Place]
    subjects: dict[str, str]
    left_out: Sequence[str]

    @classmethod
    def of(cls, run: Run, cache: LatentCache, num: int) -> Self:
        """Up to `num` windows of each side, evenly over its videos.

        Raises InputError for a side without any.
        """
        records = cache.records()
        sides: dict[str, Sequence[str]] = {"held-out": run.held_out, "training": run.training}
        windows = {
            side: spread_windows([records[video_id] for video_id in ids], run.window_shape(), num)
            for side, ids in sides.items()
        }
        for side, found in windows.items():
            if not found:
                raise InputError(_why_none(side, len(sides[side]), run))
        return cls(
            held_out=windows["held-out"],
            training=windows["training"],
            subjects=run.subjects(cache),
            left_out=run.duplicated,
        )


def _why_none(side: str, num_videos: int, run: Run) -> str:
    what = f"there are no {side} clips to compare samples with: "
    if num_videos:
        return what + (
            f"none of {num_videos} videos has the {run.config.frames} frames of a training clip; train with "
            "fewer --frames"
        )
    if run.duplicates:
        return (
            what + f"all {len(run.duplicated)} videos nearly equal a training video; hold out other subjects"
        )
    return what + "the run holds out no video; train with a --validation-fraction above 0"


def conditions_for(run: Run, num: int, seed: int) -> list[tuple[str, ...]]:
    """Conditions `NAME=VALUE` of `num` samples: those of held-out videos in a random order, over and over.

    Those of the first samples do not depend on how many follow. Videos of which some condition is not known
    are passed over, unless all are such.
    """
    labels = [run.conditions.known(run.labels[video_id]) for video_id in run.held_out]
    complete = [each for each in labels if len(each) == len(run.conditions.conditions)]
    texts = [tuple(f"{name}={text}" for name, text in each.items()) for each in complete or labels]
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[order[number % len(texts)]] for number in range(num)]
