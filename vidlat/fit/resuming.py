"""What must still hold when the training of a VAE is resumed: its settings and its videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from vidlat.config import FitVAEConfig
from vidlat.config.train import RECORDED
from vidlat.encode.weights_file import planned_network
from vidlat.errors import TrainError, one_line
from vidlat.fit.continuing import settings_to_continue
from vidlat.fit.run import FitRun, read_plan
from vidlat.train.runs.changes import changes_after
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of
from vidlat.train.runs.run_folder import checkpoint_folder
from vidlat.types import InputVideo
from vidlat.wording import shorten


def resume_fit(settings: FitVAEConfig, folder: Path) -> FitRun:
    """The training in a folder with the settings to continue with; what is not given is as it was.

    Writes nothing. Raises TrainError if there is none, and as `settings_to_continue`.
    """
    run = read_plan(folder)
    try:
        planned_network(run.network)
    except ValueError as error:
        raise TrainError(
            f"{folder} cannot be resumed: the network of its config.json is none of MAISI's class "
            f"({one_line(error)[:300]})"
        ) from error
    now = settings_to_continue(settings, run, folder)
    checkpoints = list_checkpoints(checkpoint_folder(folder))
    step = step_of(checkpoints[-1]) if checkpoints else 0
    changes = changes_after(run.changes, run.config, now, RECORDED, step)
    return dataclasses.replace(run, config=now, changes=changes)


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
