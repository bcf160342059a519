"""The folder of a run; that of a VAE's training has more, see vidlat/fit/run.py.

config.json     what the run froze (see frozen_run.py)
metrics.jsonl   one line per step       events.*, validation/  the same for TensorBoard
averages/       see power_averages.py
checkpoints/    see checkpoint.py       samples/       drawn during training
lock            held while a trainer lives
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from vidlat.documents import read_json
from vidlat.errors import TrainError, VidlatError, one_line
from vidlat.files import replace_file, require_folder, require_regular_file
from vidlat.store.layout import require_outside_caches
from vidlat.store.storage.filesystem import locked
from vidlat.train.networks.unet import build_unet
from vidlat.train.runs.checkpoint import (
    best_checkpoint,
    first_difference,
    load_ema,
    remove_partial_checkpoints,
    snapshots_of,
)
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of
from vidlat.train.runs.frozen_model import BuildModel, FrozenModel
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.power_averages import average_of_length, remove_snapshots_after
from vidlat.train.runs.presence import RUN_BYTES, require_run
from vidlat.wording import shorten

EXPORTED_WEIGHTS = "model.safetensors"
"""What an exported folder has and a run has not."""


OWN_FILES = ("config.json", "metrics.jsonl", "lock", "vae.safetensors")
OWN_FOLDERS = ("checkpoints", "averages", "validation", "samples", "reconstructions")
"""What a training writes into the folder of its run."""


EVENT_FILES = "events.out.tfevents.*"
"""Names of TensorBoard's files."""


def snapshot_folder(run_dir: Path) -> Path:
    """Where a run keeps its snapshots of averages."""
    return run_dir / "averages"


def checkpoint_folder(run_dir: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run_dir / "checkpoints"


def hold_run(run_dir: Path) -> ExitStack:
    """Lock a run's folder against other trainers until the result is closed or dropped; makes the folder.

    Raises TrainError if another trainer holds it or it cannot be made, InputError if it lies in a cache.
    """
    require_outside_caches(run_dir)
    held = ExitStack()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _require_own_files(run_dir)
        _require_no_others(run_dir)
        held.enter_context(locked(run_dir / "lock", wait=False))
    except BlockingIOError as error:
        raise TrainError(
            f"another process trains in {run_dir}; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise _unusable(run_dir, error) from error
    return held


def _require_no_others(run_dir: Path) -> None:
    """Raise TrainError for a folder that holds something, but no run: a folder of videos, for example."""
    names = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")}
    if (others := sorted(names - {*OWN_FILES, *OWN_FOLDERS})) and not (run_dir / "config.json").is_file():
        raise TrainError(f"{run_dir} holds {shorten(others, 3)}, and no run; give a new folder as --out")


def _require_own_files(run_dir: Path) -> None:
    """Raise OSError where a name of the run stands for a link, which would lead out of its folder, or a pipe.

    A run on several disks is started in a folder that is itself a link.
    """
    for name in OWN_FILES:
        with suppress(FileNotFoundError):
            require_regular_file(run_dir / name, follow=False)
    for name in OWN_FOLDERS:
        with suppress(FileNotFoundError):
            require_folder(run_dir / name)


class Plan(Protocol):
    """What a training freezes when it starts."""

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""


def start_run(run_dir: Path, run: Plan) -> None:
    """Write a new run into its folder, over the remains of a start that got no checkpoint.

    Raises TrainError if the folder holds a run with a checkpoint.
    """
    require_no_checkpoint(run_dir)
    checkpoints = checkpoint_folder(run_dir)
    try:
        if (run_dir / "config.json").exists():
            (run_dir / "metrics.jsonl").unlink(missing_ok=True)
            for events in run_dir.glob(EVENT_FILES):
                events.unlink()
            shutil.rmtree(run_dir / "validation", ignore_errors=True)
            remove_snapshots_after(snapshot_folder(run_dir), 0)
            remove_partial_checkpoints(checkpoints)
    except OSError as error:
        raise _unusable(run_dir, error) from error
    write_run(run_dir, run)


def require_no_checkpoint(run_dir: Path) -> None:
    """Raise TrainError if the folder holds a run with a checkpoint."""
    if list_checkpoints(checkpoint_folder(run_dir)):
        raise TrainError(f"{run_dir} already holds a run; continue it with --resume, or choose another --out")


def write_run(run_dir: Path, run: Plan) -> None:
    """Write config.json atomically; raises TrainError if it cannot be written."""
    content = json.dumps(run.to_dict(), indent=2) + "\n"
    try:
        replace_file(run_dir / "config.json", content.encode())
    except OSError as error:
        raise _unusable(run_dir, error) from error


def read_run(run_dir: Path) -> Run:
    """What the run in a folder has frozen; raises TrainError if the folder holds no run."""
    path = run_dir / "config.json"
    with suppress(OSError):  # told below
        require_run(run_dir)
    try:
        return Run.from_document(read_json(path, RUN_BYTES))
    except (OSError, ValueError, VidlatError) as error:
        if (run_dir / EXPORTED_WEIGHTS).exists():
            raise TrainError(
                f"{run_dir} was exported, and does not tell which videos it was trained on; give its run"
            ) from error
        raise TrainError(
            f"{path} cannot be read as a run's settings: {one_line(error)[:500]}; put back a copy of it, "
            "or train anew with another --out"
        ) from error


def _unusable(run_dir: Path, error: OSError) -> TrainError:
    named = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return TrainError(f"{run_dir}: cannot hold a run ({named}); choose another --out")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """What a run learnt: its averaged weights after `step` steps, in evaluation mode on the CPU."""

    run: FrozenModel
    model: nn.Module
    step: int


def load_run(
    run_dir: Path,
    *,
    run: Run | None = None,
    best: bool = False,
    step: int | None = None,
    average_length: float = 0.0,
    build_model: BuildModel = build_unet,
) -> TrainedRun:
    """Load the newest checkpoint of a run, the one with the lowest validation loss, or that of a step.

    run: what `read_run` has read of the folder already; None to read it. average_length: of the average made
    from the snapshots up to that step, as a share of the training; 0 for the average of the checkpoint.
    Raises TrainError for a folder without a run or without such a checkpoint.
    """
    run, directory = run or read_run(run_dir), checkpoint_folder(run_dir)
    checkpoints = list_checkpoints(directory)
    if not checkpoints:
        raise TrainError(f"{run_dir} has no checkpoint yet; continue training with --resume")
    if step is not None:
        checkpoints = [checkpoint for checkpoint in checkpoints if step_of(checkpoint) == step]
        if not checkpoints:
            raise TrainError(f"{run_dir}: its checkpoint of step {step} is gone")
    chosen = best_checkpoint(directory) if best else checkpoints[-1]
    if chosen is None:
        raise TrainError(f"{run_dir} has no checkpoint with a validation loss; use the last one")
    model, reached = run.build_network(build_model), step_of(chosen)
    if average_length:
        folder = snapshot_folder(run_dir)
        weights, reached = average_of_length(folder, average_length, reached, snapshots_of(chosen))
        if difference := first_difference(weights, model.state_dict()):
            raise TrainError(f"{folder} holds averages of another network: {difference}")
        model.load_state_dict(weights)
    else:
        load_ema(chosen, model)
    return TrainedRun(run=run, model=model.requires_grad_(False).eval(), step=reached)
