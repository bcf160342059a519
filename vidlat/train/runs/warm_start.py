"""Starting from weights that were trained before: which of them a new run takes, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from vidlat.encode.weights_file import hash_weights
from vidlat.errors import TrainError, one_line
from vidlat.paths import local_path
from vidlat.train.networks.unet import CONDITION_LAYERS, SPAN_LAYERS
from vidlat.train.objectives.conditioning import ClassCondition, Condition, Conditions
from vidlat.train.runs.checkpoint import first_difference, read_tensors
from vidlat.train.runs.exported import HUB, load_model
from vidlat.train.runs.frozen_model import BuildModel, FrozenModel
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.origin import Origin
from vidlat.train.runs.run_folder import load_run

NUMBERS = torch.float16, torch.bfloat16, torch.float32, torch.float64
"""What weights may be; of 8 bits and fewer, safetensors has numbers with which PyTorch cannot compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Averaged weights to start from; model, network: None for a file of weights alone."""

    origin: Origin
    tensors: dict[str, torch.Tensor]
    model: FrozenModel | None = None
    network: nn.Module | None = None


def place_of(name: str) -> str:
    """Where weights of that name are from any folder: an absolute path, or the name of a model on a hub."""
    return name if name.startswith(HUB) else str(local_path(name).absolute())


def read_source(name: str, build_model: BuildModel) -> Source:
    """Read a run's newest averaged weights, those of an exported folder or a hub, or a .safetensors file.

    Raises TrainError for what is none of these or damaged, WeightsError for a hub that cannot be used.
    """
    if name.endswith(".safetensors"):
        place = place_of(name)
        tensors = _read_tensors(Path(place))
        return Source(
            origin=Origin(source=place, step=0, weights_hash=hash_weights(tensors)), tensors=tensors
        )
    trained = load_model(name, build_model=build_model)
    return _source(place_of(name), trained.step, trained.run, trained.model)


def read_origin(origin: Origin, build_model: BuildModel, *, distils: bool) -> Source:
    """Read the same weights again; raises TrainError where they are gone or others.

    distils: whether the run learns from them, so that they are read whenever it is resumed.
    """
    advice = "restore them, or start a new run with another --out"
    if distils:
        advice = "say by --distil where these are, or start a new run with another --out"
    reason = ""
    try:
        found = read_source(origin.source, build_model)
    except TrainError as error:
        raise TrainError(
            f"{error}; this run started from the weights of {origin.source} at step {origin.step}, with the "
            f"hash {origin.weights_hash}, and needs them still; {advice}"
        ) from error
    if found.origin.weights_hash != origin.weights_hash and isinstance(found.model, Run):
        try:
            earlier = load_run(Path(origin.source), step=origin.step, build_model=build_model)
            found = _source(origin.source, earlier.step, earlier.run, earlier.model)
        except TrainError as error:
            reason = f" ({error})"
    if found.origin.weights_hash != origin.weights_hash:
        raise TrainError(
            f"{origin.source}: its weights have the hash {found.origin.weights_hash}, those that this run "
            f"started from, at step {origin.step}, have {origin.weights_hash}{reason}; {advice}"
        )
    if distils:
        _require_network(found)
    return found


def _source(source: str, step: int, model: FrozenModel, network: nn.Module) -> Source:
    tensors = network.state_dict()
    origin = Origin(source=source, step=step, weights_hash=hash_weights(tensors))
    return Source(origin=origin, tensors=tensors, model=model, network=network)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = read_tensors(path)
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: cannot be read as weights to start from: {one_line(error)}") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in NUMBERS or not tensor.isfinite().all():
            raise TrainError(
                f"{path}: {name} holds something else than finite numbers of 16, 32 or 64 bits; give other "
                "weights"
            )
    return tensors


def planned_from(run: Run, source: Source) -> Run:
    """The plan of a run that starts from these weights.

    One that distils them whitens latents as they are used to. Raises TrainError for weights of another VAE,
    and to distil, for a run that does not predict a velocity from the same inputs.
    """
    theirs, name = source.model, source.origin.source
    run = replace(run, origin=source.origin)
    if theirs is not None:
        found, expected = (model.schema.settings.encoder_hash for model in (theirs, run))
        if found != expected:
            raise TrainError(
                f"{name} was trained on latents of another VAE, {theirs.schema.vae_name}, than those of the "
                f"cache, {run.schema.vae_name}; start from random weights, or encode with that VAE"
            )
    if run.config.distil is None:
        return run
    theirs = _require_network(source)
    differences = {
        "objective": (theirs.config.objective, "flow"),
        "first_frame": (theirs.config.first_frame > 0, run.config.first_frame > 0),
    }
    for what, (got, wanted) in differences.items():
        if got != wanted:
            raise TrainError(f"distil: {what} of {name} is {got}; expected {wanted}")
    kinds, wanted_kinds = _kinds(theirs.conditions), _kinds(run.conditions)
    if kinds != wanted_kinds:
        flags = " ".join(f"--condition {_as_flag(each)}" for each in theirs.conditions.conditions)
        raise TrainError(
            f"distil: {name} has the conditions {', '.join(kinds) or 'none'}, this training "
            f"{', '.join(wanted_kinds) or 'none'}; give {flags or 'no --condition'}"
        )
    return replace(run, whitening=theirs.whitening, conditions=theirs.conditions)


def _require_network(source: Source) -> FrozenModel:
    """The model of weights to distil; raises TrainError where there are weights alone."""
    if source.model is None:
        raise TrainError(
            f"distil: got {source.origin.source}, weights alone; expected a run, or an exported one"
        )
    return source.model


def take_weights(network: nn.Module, source: Source, run: FrozenModel) -> str:
    """Copy weights into a newly built network, in place; returns a line that says which, and what is new.

    The embedding of conditions that are not the same starts anew, as does that of a span; input channels of a
    first frame that was never given are zero. Raises TrainError for any other difference.
    """
    ours, theirs = network.state_dict(), source.tensors
    anew: tuple[str, ...] = () if any(name.startswith(SPAN_LAYERS) for name in theirs) else SPAN_LAYERS
    anew += () if _has_same_conditions(source, run, ours) else CONDITION_LAYERS
    fresh = [name for name in ours if name.startswith(anew)]
    expected = {name: tensor for name, tensor in ours.items() if name not in fresh}
    taken = {
        name: _with_channels_of(ours.get(name), tensor, run.schema.latent_dim)
        for name, tensor in theirs.items()
        if name in expected or not name.startswith((*CONDITION_LAYERS, *SPAN_LAYERS))
    }
    if difference := first_difference(taken, expected):
        raise TrainError(
            f"{source.origin.source} holds the weights of another network ({difference}); give the "
            "--network, --preset, --channels, --blocks, --attention and --heads that it was trained with"
        )
    network.load_state_dict(taken, strict=False)
    return _what_was_taken(source, run, len(taken), fresh)


def _with_channels_of(mine: torch.Tensor | None, theirs: torch.Tensor, latent_dim: int) -> torch.Tensor:
    """The weight of the first layer with or without the channels of a given first frame, which are zero."""
    if mine is None or mine.dim() != 5 or mine.shape == theirs.shape or theirs.dim() != 5:
        return theirs
    if {mine.shape[1], theirs.shape[1]} != {latent_dim, 2 * latent_dim + 1}:
        return theirs
    fitted = theirs.new_zeros(len(theirs), mine.shape[1], *theirs.shape[2:])
    fitted[:, :latent_dim] = theirs[:, :latent_dim]
    return fitted


def _has_same_conditions(source: Source, run: FrozenModel, ours: dict[str, torch.Tensor]) -> bool:
    if source.model:
        return _kinds(source.model.conditions) == _kinds(run.conditions)
    names = [name for name in ours if name.startswith(CONDITION_LAYERS)]
    return all(name in source.tensors and source.tensors[name].shape == ours[name].shape for name in names)


def _kinds(conditions: Conditions) -> list[str]:
    """Each condition by its name and what it may be; of numbers any mean and spread."""
    return [
        f"{each.name} ({', '.join(each.classes) if isinstance(each, ClassCondition) else 'number'})"
        for each in conditions.conditions
    ]


def _as_flag(condition: Condition) -> str:
    return condition.name if isinstance(condition, ClassCondition) else f"{condition.name}:float"


def _what_was_taken(source: Source, run: FrozenModel, num_taken: int, fresh: list[str]) -> str:
    at_step = f" at step {source.origin.step}" if source.model else ""
    groups = sorted({".".join(name.split(".")[:2]) for name in fresh})
    new = f"; anew: {', '.join(groups)}" if groups else ""
    others = "; ".join(_changes(source.model, run)) if source.model else ""
    return (
        f"starts from {source.origin.source}{at_step}: {num_taken} tensors taken{new}"
        f"{f'; other than there: {others}' if others else ''}"
    )


def _changes(theirs: FrozenModel, ours: FrozenModel) -> Iterator[str]:
    for name in ("objective", "frames", "first_frame", "first_frames", "latents_as"):
        before, now = getattr(theirs.config, name), getattr(ours.config, name)
        if before != now:
            yield f"{name} {before} -> {now}"
    if _kinds(theirs.conditions) != _kinds(ours.conditions):
        kinds = [", ".join(_kinds(each.conditions)) or "none" for each in (theirs, ours)]
        yield f"conditions {' -> '.join(kinds)}"
    if theirs.schema.cache_id != ours.schema.cache_id:
        yield "a cache with other settings"
