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
    from vidlat.train.objective import Epsilon, Flow, VPrediction, masked_squared_error
    from vidlat.train.recorder import StepRecord
    from vidlat.train.split import split_videos
    from vidlat.train.trainer import Trainer, train

__all__ = [
    "Batch",
    "Epsilon",
    "Flow",
    "LatentBatches",
    "StepRecord",
    "Trainer",
    "VPrediction",
    "Whitening",
    "masked_squared_error",
    "split_videos",
    "train",
]

_HOMES = {
    "Batch": "dataset",
    "LatentBatches": "batches",
    "Epsilon": "objective",
    "Flow": "objective",
    "StepRecord": "recorder",
    "Trainer": "trainer",
    "VPrediction": "objective",
    "Whitening": "latents",
    "masked_squared_error": "objective",
    "split_videos": "split",
    "train": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
