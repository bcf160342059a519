"""A run without the videos whose latents are damaged, so that the others are measured all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from vidlat.errors import StoreError
from vidlat.store.reader import LatentCache
from vidlat.store.storage.interface import Unreachable
from vidlat.train.runs.frozen_run import Run

T = TypeVar("T")


def on_intact(run: Run, cache: LatentCache, work: Callable[[Run], T]) -> tuple[T, dict[str, str]]:
    """What `work` makes of a run, without its damaged videos if it meets one; these by id, and what is wrong.

    Only once something damaged was met, every latent of the run's videos is read to find all that is. Raises
    what `work` raises, also where nothing is left of a side of the split, and Unreachable.
    """
    try:
        return work(run), {}
    except Unreachable:
        raise
    except StoreError:
        damaged = _damaged(run, cache)
        training, validation = (
            tuple(video_id for video_id in ids if video_id not in damaged)
            for ids in (run.training, run.validation)
        )
        if not (damaged and training and validation):
            raise
    return work(replace(run, training=training, validation=validation)), damaged


def _damaged(run: Run, cache: LatentCache) -> dict[str, str]:
    found = {}
    for video_id in (*run.training, *run.validation):
        try:
            cache.read_latents(video_id)
        except Unreachable:
            raise
        except StoreError as error:
            found[video_id] = str(error).removeprefix(f"{video_id}: ")
    return found
