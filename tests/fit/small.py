"""Fits small enough for tests: settings, frames, and training stacks of them."""

import numpy as np

from vidlat.config import FitVAEConfig
from vidlat.fit.stacks import TrainingStacks


def config(**changes):
    return FitVAEConfig(
        **{"size": 16, "steps": 3, "batch": 2, "warmup_steps": 2, "device": "cpu", "save_every": 2} | changes
    )


def frames(num_frames=24, seed=0):
    values = np.random.default_rng(seed).random((num_frames, 4, 4), np.float32)
    return list(np.kron(values, np.ones((1, 4, 4), np.float32)))


def collection(settings, num_videos=2):
    stacks = TrainingStacks(settings)
    for seed in range(num_videos):
        stacks.add_video(frames(seed=seed))
    return stacks
