"""A model to share: the folder that `vidlat export` writes, on this machine or on a hub.

config.json          what sampling has to know; no video, path or label of a video
model.safetensors    the averaged weights
README.md            the model card
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

import vidlat
from vidlat.documents import Fields, read_json
from vidlat.encode.hub import HubFile, fetch
from vidlat.encode.weights_file import hash_weights
from vidlat.errors import TrainError, VidlatError, one_line, shown
from vidlat.paths import local_path
from vidlat.train.networks.unet import build_unet
from vidlat.train.runs.checkpoint import first_difference, read_tensors
from vidlat.train.runs.frozen_model import BuildModel, FrozenModel
from vidlat.train.runs.run_folder import EXPORTED_WEIGHTS, TrainedRun, load_run

CONFIG, WEIGHTS, CARD = "config.json", EXPORTED_WEIGHTS, "README.md"

CONFIG_BYTES = 2**24
"""Most bytes of a config.json: it lists no videos."""

HUB = "hf://"
"""What the name of a model on a hub begins with."""

_HUB_ID = re.compile(r"hf://(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")

MOST_VIDEOS = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """The content of an exported config.json. weights_hash: as `hash_weights`. licence: a text for users."""

    model: FrozenModel
    step: int
    weights_hash: str
    licence: str
    num_training: int
    num_validation: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "vidlat_version": vidlat.__version__,
            "model": self.model.to_dict(),
            "step": self.step,
            "weights_hash": self.weights_hash,
            "licence": self.licence,
            "num_training_videos": self.num_training,
            "num_validation_videos": self.num_validation,
        }

    @classmethod
    def from_document(cls, document: object) -> Self:
        """The inverse of `to_dict`.

        Raises ValueError, ConfigError, StoreError or TrainError for what no export has written.
        """
        fields = Fields(document, "the model")
        return cls(
            model=FrozenModel.from_fields(fields.fields("model")),
            step=fields.whole("step", 0, MOST_VIDEOS),
            weights_hash=fields.text("weights_hash"),
            licence=fields.text("licence"),
            num_training=fields.whole("num_training_videos", 1, MOST_VIDEOS),
            num_validation=fields.whole("num_validation_videos", 0, MOST_VIDEOS),
        )


def load_model(
    source: str | Path,
    *,
    best: bool = False,
    average_length: float = 0.0,
    build_model: BuildModel = build_unet,
) -> TrainedRun:
    """Load what samples are drawn from: a run, an exported folder, or `hf://OWNER/NAME[@REVISION]`.

    best, average_length: of a run, as for `load_run`. A model of a hub is downloaded once; a file that
    differs from the first download is refused. Raises TrainError for what is neither, or damaged, and
    WeightsError for a hub that cannot be used.
    """
    folder = _fetched(str(source)) if str(source).startswith(HUB) else local_path(source)
    if not (folder / WEIGHTS).exists():
        return load_run(folder, best=best, average_length=average_length, build_model=build_model)
    if best or average_length:
        name, flag = ("checkpoint", "--checkpoint") if best else ("average_length", "--average-length")
        raise TrainError(f"{name}: {source} holds a single set of weights; leave {flag} out")
    return _load_exported(folder, build_model)


def read_exported(folder: Path) -> ExportedModel:
    """The config.json of an exported folder; raises TrainError where it cannot be read."""
    path = folder / CONFIG
    try:
        return ExportedModel.from_document(read_json(path, CONFIG_BYTES))
    except (OSError, ValueError, VidlatError) as error:
        raise TrainError(f"{path} cannot be read as that of a model: {one_line(error)[:500]}") from error


def _load_exported(folder: Path, build_model: BuildModel) -> TrainedRun:
    exported, path = read_exported(folder), folder / WEIGHTS
    try:
        tensors = read_tensors(path)
    except (OSError, ValueError) as error:
        raise TrainError(f"{path} is damaged ({one_line(error)}); fetch or export it again") from error
    if (found := hash_weights(tensors)) != exported.weights_hash:
        raise TrainError(
            f"{path} is damaged: its hash is {found}, expected {exported.weights_hash}; fetch or export it "
            "again"
        )
    with torch.device("meta"):  # which has no memory: what is described may be of any size
        described = exported.model.build_network(build_model).state_dict()
    if difference := first_difference(tensors, described):
        raise TrainError(f"{path} holds the weights of another network than {CONFIG} describes: {difference}")
    network = exported.model.build_network(build_model)
    network.load_state_dict(tensors)
    network.requires_grad_(False).eval()
    return TrainedRun(run=exported.model, model=network, step=exported.step)


def _fetched(source: str) -> Path:
    match = _HUB_ID.fullmatch(source)
    if not match:
        raise TrainError(f"got {shown(source)}; expected hf://OWNER/NAME, or hf://OWNER/NAME@REVISION")
    repo, revision = match[1], match[2] or "main"
    config, weights = (
        fetch(HubFile(repo=repo, revision=revision, filename=name)) for name in (CONFIG, WEIGHTS)
    )
    if config.parent != weights.parent:
        raise TrainError(f"{source} changed on the hub while it was fetched; run the command again")
    return config.parent
