"""Samples that copy no training clip: one that does is drawn again, from other noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vidlat.config import SampleConfig
from vidlat.copies.search import CopySearch, Match
from vidlat.errors import ConfigError, CopyError
from vidlat.paths import local_path
from vidlat.store.reader import open_cache
from vidlat.train.runs.frozen_model import FrozenModel
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.resuming import require_same_videos
from vidlat.wording import shorten

MOST_ATTEMPTS = 10
"""How often a sample is drawn before it is given up."""

DRAWN_AT_ONCE = 16
"""Samples that are drawn and compared together: each search reads a cache that memory cannot hold."""

Draw = Callable[[Sequence[int], int], Iterator[Tensor]]
"""Samples, by their numbers, and the attempt, counted from 0, to the latents (L, t, h, w) of each."""


class Drawn(NamedTuple):
    """A sample. copied: the training window that its last attempt copied too; None for one to keep."""

    latents: Tensor
    num_rejected: int = 0
    copied: Match | None = None


class CopyRejection:
    """Draws samples again that are nearer to a training clip than a share `quantile` of held-out clips.

    Raises TrainError for a run that holds no videos out, StoreError for damaged latents.
    """

    def __init__(self, search: CopySearch, quantile: float) -> None:
        self._search = search
        self.threshold = search.calibrate().threshold(quantile)

    def draw(self, num_samples: int, draw: Draw) -> Iterator[tuple[int, Drawn]]:
        """Yield each sample with its number once it is accepted: from its first attempt that copies nothing.

        So those that are drawn again come after others. A sample whose MOST_ATTEMPTS attempts all copy
        something is yielded with what the last one copies.
        """
        for first in range(0, num_samples, DRAWN_AT_ONCE):
            yield from self._draw_together(range(first, min(first + DRAWN_AT_ONCE, num_samples)), draw)

    def _draw_together(self, numbers: Sequence[int], draw: Draw) -> Iterator[tuple[int, Drawn]]:
        missing = list(numbers)
        for attempt in range(MOST_ATTEMPTS):
            latents = list(draw(missing, attempt))
            matches = self._search.nearest(latents)
            copied = []
            for number, each, match in zip(missing, latents, matches, strict=True):
                if match.distance >= self.threshold:
                    yield number, Drawn(each, attempt)
                elif attempt == MOST_ATTEMPTS - 1:
                    yield number, Drawn(each, MOST_ATTEMPTS, match)
                else:
                    copied.append(number)
            missing = copied
            if not missing:
                break


def copy_rejection(
    run_dir: str | Path,
    run: FrozenModel,
    latents: str | Path | None,
    settings: SampleConfig,
    device: torch.device,
) -> CopyRejection | None:
    """What rejects copies, if the settings ask for it; latents: the cache of the run.

    Raises ConfigError where one of the two is missing, TrainError for another cache than the run's, or as
    `CopyRejection`.
    """
    if not settings.reject_copies:
        if latents is not None:
            raise ConfigError("latents: a cache is compared with for --reject-copies alone; give both")
        return None
    if not isinstance(run, Run):
        raise ConfigError(
            f"reject_copies: {run_dir} was exported, and does not tell which videos it was trained on; give "
            "its run"
        )
    if latents is None:
        raise ConfigError("reject_copies: needs the cache that the run was trained on; give it by --latents")
    cache = open_cache(latents)
    require_same_videos(run, cache, local_path(run_dir))
    length = run.schema.timing.num_latent_frames(settings.frames or run.config.frames)
    return CopyRejection(CopySearch(run, cache, length, device=str(device)), settings.reject_copies)


def require_no_copies(copies: Sequence[tuple[int, Match]]) -> None:
    """Raise CopyError for samples, by seed, whose attempts all copied; with the match of the last one."""
    if not copies:
        return
    seed, match = copies[0]
    seeds = shorten([str(seed) for seed, _ in copies])
    raise CopyError(
        f"{len(copies)} of the samples (seed {seeds}) copied a training clip at each of {MOST_ATTEMPTS} "
        f"attempts and are not written; the last attempt of seed {seed} copies {match.video_id}; draw other "
        "seeds, or train on more videos"
    )
