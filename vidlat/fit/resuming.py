"""What must still hold when the training of a VAE is resumed: its settings and its videos."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from vidlat.config import ChosenFit, FitVAEConfig
from vidlat.encode.weights_file import planned_network
from vidlat.errors import TrainError, one_line, shorten
from vidlat.fit.run import FitRun, read_plan
from vidlat.train.runs.changes import changes_after
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of
from vidlat.train.runs.resuming import RECORDED
from vidlat.train.runs.run_folder import checkpoint_folder
from vidlat.types import InputVideo

MAY_CHANGE = (
    *RECORDED, "device", "checkpoint_activations", "max_skipped", "checkpoint_every", "keep", "tracker",
)  # fmt: skip
"""Settings that may: what a training records, and where and how it trains, what it bears and keeps."""


def steps_of(epochs: float, num_stacks: int, batch: int) -> int:
    """How many steps have every stack come so many times."""
    return max(math.ceil(epochs * num_stacks / batch), 1)


def resume_fit(settings: FitVAEConfig, folder: Path) -> FitRun:
    """The training in a folder with the settings to continue with; what is not given is as it was.

    Writes nothing. Raises TrainError if there is none, and naming settings other than `MAY_CHANGE` that
    differ.
    """
    run = read_plan(folder)
    try:
        planned_network(run.network)
    except ValueError as error:
        raise TrainError(
            f"{folder} cannot be resumed: the network of its config.json is none of MAISI's class "
            f"({one_line(error)[:300]})"
        ) from error
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
    _require_same(before, now, folder)
    checkpoints = list_checkpoints(checkpoint_folder(folder))
    step = step_of(checkpoints[-1]) if checkpoints else 0
    changes = changes_after(run.changes, before, now, RECORDED, step)
    return dataclasses.replace(run, config=now, changes=changes)


def _require_same(before: ChosenFit, now: ChosenFit, folder: Path) -> None:
    was, wanted = before.to_dict(), now.to_dict()
    changed = [name for name in wanted if wanted[name] != was[name] and name not in MAY_CHANGE]
    if changed:
        pairs = "; ".join(f"{name}: got {wanted[name]}, the run has {was[name]}" for name in changed)
        raise TrainError(
            f"{folder} cannot be resumed with other settings ({pairs}); choose another --out, and "
            "--init with its weights to train them further"
        )


def videos_of(run: FitRun, found: Mapping[str, InputVideo], folder: Path) -> list[InputVideo]:
    """The videos that a training was started with, those to train on and the clips to validate.

    Raises TrainError where one is gone. What has changed shows in the hash of the stacks.
    """
    gone = [video_id for video_id in (*run.training, *run.clips) if video_id not in found]
    if gone:
        raise TrainError(
            f"{folder} cannot be resumed: videos are gone: {shorten(gone)}; restore them, or start a new "
            "training with another --out"
        )
    return [found[video_id] for video_id in (*run.training, *run.clips)]
