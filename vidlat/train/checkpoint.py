"""Checkpoints as safetensors and JSON, never pickle; each is complete or absent.

    checkpoints/step_00000200/
      model.safetensors      the weights in training
      ema.safetensors        their moving average, which is all that sampling reads
      optimiser.safetensors  AdamW's moments, "<parameter index>.<name>"
      state.json             the step, and its validation loss or null

A checkpoint is written under another name, synced and renamed, so whatever has its name is complete.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vidlat.errors import TrainError, one_line
from vidlat.store.filesystem import delete_tree, sync

_NAME = re.compile(r"step_(\d{8,})")


@dataclass(kw_only=True)
class TrainState:
    """Everything that changes during training; step: number of finished optimiser steps."""

    model: nn.Module
    ema: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0


def list_checkpoints(directory: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    found = directory.iterdir() if directory.is_dir() else iter(())
    return sorted((path for path in found if _NAME.fullmatch(path.name)), key=step_of)


def remove_partial_checkpoints(directory: Path) -> None:
    """Remove checkpoints that a killed process left unfinished."""
    for partial in directory.glob("step_*.partial"):
        delete_tree(partial)


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix("step_"))


def best_checkpoint(directory: Path) -> Path | None:
    """The checkpoint with the lowest validation loss, the latest of equals; None if none has one."""
    losses = {path: validation_loss_of(path) for path in list_checkpoints(directory)}
    validated = {path: loss for path, loss in losses.items() if math.isfinite(loss)}
    return min(reversed(validated), key=validated.__getitem__) if validated else None


def validation_loss_of(checkpoint: Path) -> float:
    """The validation loss of its averaged weights; infinite if it has none or its state.json is damaged."""
    try:
        loss = json.loads((checkpoint / "state.json").read_text()).get("validation_loss")
    except (OSError, ValueError, AttributeError):
        return math.inf
    return loss if isinstance(loss, float) else math.inf


def save_checkpoint(
    directory: Path, state: TrainState, *, keep: int = 3, validation_loss: float | None = None
) -> Path:
    """Write `directory/step_<step>` atomically, then remove all but the last `keep` and the best.

    Raises TrainError if it cannot be written; the earlier checkpoints stay.
    """
    path = directory / f"step_{state.step:08d}"
    partial = directory / f"{path.name}.partial"
    try:
        delete_tree(partial)
        partial.mkdir(parents=True)
        _save_tensors(partial / "model.safetensors", state.model.state_dict())
        _save_tensors(partial / "ema.safetensors", state.ema.state_dict())
        _save_tensors(partial / "optimiser.safetensors", _flatten_optimiser(state.optimiser))
        values = {"step": state.step, "validation_loss": validation_loss}
        (partial / "state.json").write_text(json.dumps(values))
        sync(partial / "state.json")
        sync(partial)
        partial.rename(path)
        sync(directory)
        best = best_checkpoint(directory)
        for old in list_checkpoints(directory)[:-keep]:
            if old != best:
                # Renamed first: whatever has a checkpoint's name is complete.
                delete_tree(old.rename(old.with_name(f"{old.name}.partial")))
    except (OSError, SafetensorError) as error:
        raise TrainError(f"{path}: the checkpoint cannot be written: {error}") from error
    return path


def load_checkpoint(checkpoint: Path, state: TrainState) -> None:
    """Load a checkpoint into a newly built state, on any device.

    Raises TrainError for a damaged checkpoint or one of another network.
    """
    _load_module(checkpoint / "model.safetensors", state.model)
    load_ema(checkpoint, state.ema)
    fresh = state.optimiser.state_dict()
    moments = _unflatten_optimiser(_load_tensors(checkpoint / "optimiser.safetensors"))
    state.optimiser.load_state_dict({"state": moments, "param_groups": fresh["param_groups"]})
    state.step = step_of(checkpoint)


def load_ema(checkpoint: Path, model: nn.Module) -> None:
    """Load the averaged weights only; raises TrainError as `load_checkpoint` does."""
    _load_module(checkpoint / "ema.safetensors", model)


def _flatten_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _unflatten_optimiser(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = defaultdict(dict)
    for key, tensor in tensors.items():
        index, name = key.split(".")
        state[int(index)][name] = tensor
    return dict(state)


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    sync(path)


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainError(
            f"{path} is damaged ({error}); remove the folder {path.parent} to resume from the one before"
        ) from error


def _load_module(path: Path, module: nn.Module) -> None:
    try:
        module.load_state_dict(_load_tensors(path))
    except RuntimeError as error:
        raise TrainError(f"{path} holds the weights of another network: {one_line(error)}") from error
