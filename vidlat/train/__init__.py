"""Training on a cache, with vidlat's networks or anybody's.

Every name is loaded when it is asked for: whoever wants batches does not wait for a trainer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidlat.train.batches import LatentBatches
    from vidlat.train.dataset import Batch
    from vidlat.train.latents import Whitening
    from vidlat.train.objective import masked_squared_error, target, to_x0
    from vidlat.train.recorder import StepRecord
    from vidlat.train.sampler import sample_latents
    from vidlat.train.scheduler import NoiseScheduler
    from vidlat.train.split import split_videos
    from vidlat.train.trainer import Trainer, train

__all__ = [
    "Batch",
    "LatentBatches",
    "NoiseScheduler",
    "StepRecord",
    "Trainer",
    "Whitening",
    "masked_squared_error",
    "sample_latents",
    "split_videos",
    "target",
    "to_x0",
    "train",
]

_HOMES = {
    "Batch": "dataset",
    "LatentBatches": "batches",
    "NoiseScheduler": "scheduler",
    "StepRecord": "recorder",
    "Trainer": "trainer",
    "Whitening": "latents",
    "masked_squared_error": "objective",
    "sample_latents": "sampler",
    "split_videos": "split",
    "target": "objective",
    "to_x0": "objective",
    "train": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
