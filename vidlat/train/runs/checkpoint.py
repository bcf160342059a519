"""Checkpoints as safetensors and JSON, never pickle; each is complete or absent.

    checkpoints/step_00000200/
      model.safetensors      the weights in training
      ema.safetensors        their moving average, which is all that sampling reads
      optimiser.safetensors  AdamW's moments, "<parameter index>.<name>"
      averages.safetensors   further averages, where snapshots are taken (power_averages.py)
      discriminator.safetensors, discriminator_optimiser.safetensors
                             the same of what a VAE is trained against, where there is one
      state.json             the step, how many of the steps were skipped, the validation loss or null, the
                             CRC32C of each file above; the hash of each snapshot so far, where they are
                             taken; the metrics of the step, where its validation was interrupted

A checkpoint is written under another name, synced and renamed, so whatever has its name is complete. The
checksums are compared before a file is loaded; checkpoints of before state none.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import google_crc32c
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vidlat.documents import Fields, read_json
from vidlat.errors import TrainError, one_line
from vidlat.files import open_regular_file, replace_file, require_regular_file
from vidlat.store.storage.filesystem import delete_tree, sync
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of
from vidlat.train.runs.power_averages import PowerAverages

Tensors = dict[str, torch.Tensor]
T = TypeVar("T")

STATE_BYTES = 2**24
"""Most bytes of a state.json, which tells of up to 150,000 snapshots."""

MOST_COUNTED = 2**24
"""AdamW counts its steps in float32, which counts no further."""

_BLOCK_BYTES = 2**22
"""Read at once for a checksum."""


class Discriminator(NamedTuple):
    """What a VAE is trained against, and its optimiser."""

    model: nn.Module
    optimiser: torch.optim.Optimizer


@dataclass(kw_only=True)
class TrainState:
    """Everything that changes during training; step: number of finished steps, with those skipped."""

    model: nn.Module
    ema: nn.Module
    optimiser: torch.optim.Optimizer
    discriminator: Discriminator | None = None
    averages: PowerAverages | None = None
    step: int = 0

    @property
    def num_skipped(self) -> int:
        """Steps that changed nothing, because loss or gradient was not finite; waits for the device."""
        counts = [int(values["step"]) for values in list(self.optimiser.state.values())[:1]]
        return min(self.step, MOST_COUNTED) - counts[0] if counts else 0


def remove_partial_checkpoints(directory: Path) -> None:
    """Remove checkpoints that a killed process left unfinished."""
    for partial in directory.glob("step_*.partial"):
        delete_tree(partial)


def best_checkpoint(directory: Path) -> Path | None:
    """The checkpoint with the lowest validation loss, the first of equals; None if none has one."""
    losses = {path: validation_loss_of(path) for path in list_checkpoints(directory)}
    validated = {path: loss for path, loss in losses.items() if math.isfinite(loss)}
    return min(validated, key=validated.__getitem__, default=None)


def validation_loss_of(checkpoint: Path) -> float:
    """The validation loss of its averaged weights; infinite if it has none or its state.json is damaged."""
    try:
        return _read_state(checkpoint).number("validation_loss")
    except (TrainError, ValueError):
        return math.inf


def unvalidated_of(checkpoint: Path, parse: Callable[[Fields], T]) -> T | None:
    """The metrics of its step, whose validation was interrupted; None where it was not.

    parse: raises ValueError. Raises TrainError for a damaged checkpoint.
    """
    state = _read_state(checkpoint)
    try:
        return parse(state.fields("unvalidated")) if "unvalidated" in state.names() else None
    except ValueError as error:
        raise _damaged(checkpoint / "state.json", one_line(error)) from error


def add_validation_loss(checkpoint: Path, loss: float) -> None:
    """Complete a checkpoint whose validation was interrupted; raises TrainError if it cannot be written."""
    path = checkpoint / "state.json"
    try:
        values = read_json(path, STATE_BYTES) | {"validation_loss": loss}
        values.pop("unvalidated", None)
        replace_file(path, json.dumps(values).encode())
    except OSError as error:
        raise TrainError(f"{path}: the validation loss cannot be written: {error}") from error


def save_checkpoint(
    directory: Path,
    state: TrainState,
    *,
    keep: int = 3,
    validation_loss: float | None = None,
    unvalidated: Mapping[str, float | None] | None = None,
) -> Path:
    """Write `directory/step_<step>` atomically, then remove all but the last `keep` and the best.

    unvalidated: the metrics of the step, where its validation was interrupted.

    Raises TrainError if it cannot be written; the earlier checkpoints stay.
    """
    path = directory / f"step_{state.step:08d}"
    partial = directory / f"{path.name}.partial"
    try:
        delete_tree(partial)
        partial.mkdir(parents=True)
        files = {
            "model.safetensors": state.model.state_dict(),
            "ema.safetensors": state.ema.state_dict(),
            "optimiser.safetensors": _flatten_optimiser(state.optimiser),
        }
        if state.averages:
            files["averages.safetensors"] = state.averages.tensors()
        if state.discriminator:
            files["discriminator.safetensors"] = state.discriminator.model.state_dict()
            files["discriminator_optimiser.safetensors"] = _flatten_optimiser(state.discriminator.optimiser)
        values: dict[str, Any] = {
            "step": state.step,
            "num_skipped": state.num_skipped,
            "validation_loss": validation_loss,
            "crc32c": {name: _save_tensors(partial / name, tensors) for name, tensors in files.items()},
        }
        if state.averages and state.averages.written is not None:
            values["snapshots"] = state.averages.written
        if unvalidated:
            values["unvalidated"] = dict(unvalidated)
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
    step = step_of(checkpoint)
    _load_module(checkpoint / "model.safetensors", state.model)
    load_ema(checkpoint, state.ema)
    num_updates = min(step, MOST_COUNTED) - _num_skipped_of(checkpoint, step)
    _load_optimiser(checkpoint / "optimiser.safetensors", state.optimiser, step, num_updates)
    if state.averages:
        path, expected = checkpoint / "averages.safetensors", state.averages.tensors()
        tensors = _load_tensors(path)
        _require_like(path, tensors, expected)
        state.averages.load(tensors)
        state.averages.written = snapshots_of(checkpoint)
    if state.discriminator:
        model, optimiser = state.discriminator
        _load_module(checkpoint / "discriminator.safetensors", model)
        _load_optimiser(checkpoint / "discriminator_optimiser.safetensors", optimiser, step, num_updates)
    state.step = step


def how_to_do_without(checkpoint: Path) -> str:
    """What to do about a checkpoint that is of no use, and what is left then."""
    others = [other for other in list_checkpoints(checkpoint.parent) if other != checkpoint]
    rest = f"to go on from {others[-1].name}" if others else "to start again: there is no other checkpoint"
    return f"remove the folder {checkpoint} {rest}"


def how_to_go_on(directory: Path) -> str:
    """What to do after numbers that are not finite, which even the last checkpoint may give."""
    way = "go on with --resume and a lower --learning-rate or --precision float32"
    if not (checkpoints := list_checkpoints(directory)):
        return f"{way}; there is no checkpoint yet"
    last = checkpoints[-1]
    return f"{way} from {last.name}; if that ends like this again, {how_to_do_without(last)}"


def load_ema(checkpoint: Path, model: nn.Module) -> None:
    """Load the averaged weights only; raises TrainError as `load_checkpoint` does."""
    _load_module(checkpoint / "ema.safetensors", model)


def _flatten_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _load_optimiser(path: Path, optimiser: torch.optim.Optimizer, step: int, num_updates: int) -> None:
    groups = optimiser.state_dict()["param_groups"]
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    moments = _load_moments(path, parameters if step else [], num_updates)
    optimiser.load_state_dict({"state": moments, "param_groups": groups})


def _load_moments(
    path: Path, parameters: Sequence[torch.Tensor], num_updates: int
) -> dict[int, dict[str, torch.Tensor]]:
    """AdamW's state for each parameter, complete: without it, it would start anew in silence."""
    expected: Tensors = {}
    for number, parameter in enumerate(parameters):
        expected[f"{number}.step"] = torch.tensor(0.0)
        expected[f"{number}.exp_avg"] = expected[f"{number}.exp_avg_sq"] = parameter
    tensors = _load_tensors(path)
    _require_like(path, tensors, expected)
    state: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        if name == "exp_avg_sq" and (tensor < 0).any():
            raise _damaged(path, f"{key} holds negative numbers")
        if name == "step" and tensor != num_updates:
            raise _damaged(path, f"{key} is {tensor.item():g}; expected {num_updates}")
        is_step = name == "step"
        state[int(index)][name] = tensor if is_step else _laid_out_as(parameters[int(index)], tensor)
    return dict(state)


def _laid_out_as(parameter: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """A moment in the strides of its parameter, which the fused AdamW takes for those of both on a CPU."""
    return torch.empty_like(parameter, device=moment.device).copy_(moment)


def _save_tensors(path: Path, tensors: Tensors) -> int:
    """Write a file, and return its checksum."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    sync(path)
    return _checksum_of(path)


def _load_tensors(path: Path) -> Tensors:
    try:
        _require_checksum(path)
        tensors = read_tensors(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, one_line(error)) from error
    return tensors


def read_tensors(path: Path) -> Tensors:
    """The tensors of a safetensors file; raises OSError or ValueError for anything else."""
    require_regular_file(path)
    try:
        tensors: Tensors = load_file(path)
    except (SafetensorError, TypeError, KeyError) as error:
        raise ValueError(one_line(error)) from error
    return tensors


def _require_checksum(path: Path) -> None:
    """Raise ValueError where a file of a checkpoint is not what its state.json says; OSError for no file."""
    found, state = _checksum_of(path), _read_state(path.parent)
    if "crc32c" in state.names():
        expected = state.fields("crc32c").whole(path.name, 0, 2**32 - 1)
        if found != expected:
            raise ValueError(f"its CRC32C is {found:08x}; expected {expected:08x}")


def _checksum_of(path: Path) -> int:
    """The CRC32C of a regular file."""
    crc32c = 0
    with open_regular_file(path) as file:
        while block := file.read(_BLOCK_BYTES):
            crc32c = google_crc32c.extend(crc32c, block)
    return crc32c


def _read_state(checkpoint: Path) -> Fields:
    """The fields of its state.json; raises TrainError where it is damaged."""
    path = checkpoint / "state.json"
    try:
        return Fields(read_json(path, STATE_BYTES), path.name)
    except (OSError, ValueError) as error:
        raise _damaged(path, one_line(error)) from error


def _num_skipped_of(checkpoint: Path, step: int) -> int:
    """How many of its steps were skipped; 0 where it does not say so."""
    state = _read_state(checkpoint)
    try:
        return state.whole("num_skipped", 0, step) if "num_skipped" in state.names() else 0
    except ValueError as error:
        raise _damaged(checkpoint / "state.json", one_line(error)) from error


def snapshots_of(checkpoint: Path) -> dict[str, str] | None:
    """The hash of each snapshot of averages up to a checkpoint, by file name; None where it tells none.

    Raises TrainError for a damaged checkpoint.
    """
    state = _read_state(checkpoint)
    try:
        return state.fields("snapshots").all_texts() if "snapshots" in state.names() else None
    except ValueError as error:
        raise _damaged(checkpoint / "state.json", one_line(error)) from error


def _load_module(path: Path, module: nn.Module) -> None:
    tensors, expected = _load_tensors(path), module.state_dict()
    if tensors.keys() != expected.keys() or any(
        tensors[name].shape != expected[name].shape for name in expected
    ):
        raise TrainError(
            f"{path} holds the weights of another network: {first_difference(tensors, expected)}"
        )
    _require_like(path, tensors, expected)
    module.load_state_dict(tensors)


def _require_like(path: Path, tensors: Tensors, expected: Tensors) -> None:
    """Raise TrainError unless names, shapes and number types are as expected, and all numbers finite."""
    if difference := first_difference(tensors, expected):
        raise _damaged(path, difference)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise _damaged(path, f"{name} holds numbers that are not finite")


def first_difference(tensors: Tensors, expected: Tensors) -> str:
    """Where tensors differ from what is expected; empty where they do not."""
    different = [
        name
        for name in [*expected, *(name for name in tensors if name not in expected)]
        if _kind_of(tensors.get(name)) != _kind_of(expected.get(name))
    ]
    if not different:
        return ""
    first = different[0]
    return (
        f"{len(different)} of {len(expected)} tensors differ, such as {first}: "
        f"got {_kind_of(tensors.get(first))}, expected {_kind_of(expected.get(first))}"
    )


def _kind_of(tensor: torch.Tensor | None) -> str:
    """Shape and number type of a tensor, such as `float32 (2, 3)`."""
    if tensor is None:
        return "none"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _damaged(path: Path, what: str) -> TrainError:
    return TrainError(f"{path} is damaged ({what}); {how_to_do_without(path.parent)}")
