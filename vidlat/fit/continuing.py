"""The settings that the training of a VAE is resumed with, asked without torch."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from vidlat.config import ChosenFit, FitVAEConfig
from vidlat.config.train import RECORDED
from vidlat.fit.run import FitRun
from vidlat.train.runs.presence import require_unchanged

MAY_CHANGE = (
    *RECORDED, "device", "checkpoint_activations", "max_skipped", "checkpoint_every", "keep", "tracker",
)  # fmt: skip
"""Settings that a resumed training may change."""


def steps_of(epochs: float, num_stacks: int, batch: int) -> int:
    """How many steps have every stack come so many times."""
    return max(math.ceil(epochs * num_stacks / batch), 1)


def settings_to_continue(settings: FitVAEConfig, run: FitRun, folder: Path) -> ChosenFit:
    """Those of a training in a folder with what is given; what is not is as it was.

    Raises TrainError naming settings other than `MAY_CHANGE` that differ.
    """
    before = run.config
    if settings.precision == "auto":
        settings = dataclasses.replace(settings, precision=before.precision)
    now = settings.chosen(before.network or before.recipe)
    left_open = [
        name for name in ("validation_fraction", "validate_every", "validate_epochs", "steps")
        if getattr(settings, name) is None
    ]  # fmt: skip
    now = dataclasses.replace(now, **{name: getattr(before, name) for name in left_open})
    if settings.epochs:
        now = dataclasses.replace(now, steps=steps_of(settings.epochs, run.num_stacks, now.batch))
    way_out = ", and --init with its weights to train them further"
    require_unchanged(folder, before, now, MAY_CHANGE, way_out)
    return now
