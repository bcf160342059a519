"""The learning-rate schedule of every training here."""

from __future__ import annotations

import math

import torch

from vidlat.config import FitVAEConfig, TrainConfig


def learning_rate(config: TrainConfig | FitVAEConfig, step: int) -> float:
    """The rate of a step counted from 0: linear warm-up, then a half cosine down to 0 at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let the optimiser's next step use this rate for every parameter."""
    for group in optimiser.param_groups:
        group["lr"] = rate
