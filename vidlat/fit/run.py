"""The documents of a VAE's training: what it froze when it started, and the metrics of its steps.

runs/vae/
  config.json        settings, network, videos on both sides, and a hash of the training stacks
  metrics.jsonl      a line per step       events.*, validation/  the same for TensorBoard, and pictures
  checkpoints/       see vidlat/train/runs/checkpoint.py
  vae.safetensors    the averaged weights  reconstructions/   of the validation clips, moving
  lock               held while a process trains
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import vidlat
from vidlat.checked_settings import LARGE
from vidlat.config import ChosenFit, FitVAEConfig
from vidlat.config.split import with_pattern
from vidlat.documents import Fields, parse_json, read_json
from vidlat.errors import TrainError, VidlatError, one_line
from vidlat.files import read_file
from vidlat.paths import local_path
from vidlat.train.runs.changes import Change

WEIGHTS = "vae.safetensors"
"""The name of the averaged weights in the folder of a run."""

DOCUMENT_BYTES = 2**30
"""Most bytes of a config.json or metrics.jsonl: some million videos or steps."""

_KIND = "VAE"
"""What config.json says of itself; that of a diffusion run says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitStep:
    """The metrics of a training step, or, with step 0, of the start.

    epoch: passes over the training stacks, with their fraction. loss: of the step's stacks before its update,
    the weighted sum of `terms`, which are not weighted. mse: of the same stacks, whose latents are drawn from
    the posterior. grad_norm: before clipping. Any of these is NaN where it is not finite, and at step 0.
    validation: figures of the averaged weights on the held-out clips, as `Summary.to_dict` has them.
    """

    step: int
    epoch: float
    loss: float = math.nan
    terms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    mse: float = math.nan
    learning_rate: float = 0.0
    grad_norm: float = math.nan
    steps_per_second: float = math.nan
    validation: Mapping[str, Any] | None = None

    @property
    def is_skipped(self) -> bool:
        """Whether the step changed no weight, because its loss or its gradient is not finite."""
        figures = self.loss, self.grad_norm, *self.terms.values()
        return self.step > 0 and not all(map(math.isfinite, figures))

    def to_dict(self) -> dict[str, Any]:
        """A line of metrics.jsonl, where a number that is not finite is null."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """The inverse of `to_dict`; raises ValueError for what no training has written."""
        names = ("loss", "mse", "grad_norm", "steps_per_second")
        terms = fields.fields("terms")
        validated = "validation" in fields.names()
        return cls(
            step=fields.whole("step", 0, int(LARGE)),
            epoch=fields.number("epoch", 0),
            learning_rate=fields.number("learning_rate", 0),
            terms={name: _number_or_nan(terms, name) for name in terms.names()},
            validation=_figures(fields.take("validation", dict, "an object")) if validated else None,
            **{name: _number_or_nan(fields, name) for name in names},
        )


def _number_or_nan(fields: Fields, name: str) -> float:
    return math.nan if fields.is_null(name) else fields.number(name)


def _figures(values: dict[str, Any]) -> dict[str, Any]:
    """The same; raises ValueError unless what `Summary.to_dict` always has is there, and all are numbers."""
    fields = Fields(values, "validation")
    fields.number("mse", 0)
    for name in ("psnr", "ssim"):
        fields.number(name)
    _require_numbers(fields)
    _require_numbers(fields.fields("motion"))
    return values


def _require_numbers(fields: Fields) -> None:
    """Raise ValueError for a field that is neither a number nor null, but for those that are objects."""
    for name in set(fields.names()) - {"motion", "criteria"}:
        _number_or_nan(fields, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRun:
    """What a VAE's training froze when it started, and the metrics of its steps so far.

    config: the present settings, none of which is left to a recipe or `auto`. network: the settings of
    AutoencoderKlMaisi. init_hash: of the weights that were fine-tuned; empty from scratch. training,
    validation: ids of the videos on both sides; clips: of those that are validated. num_stacks, stacks_hash:
    of the training stacks held. changes: of the settings, as they came.
    """

    config: ChosenFit
    network: Mapping[str, Any]
    init_hash: str
    training: tuple[str, ...]
    validation: tuple[str, ...]
    clips: tuple[str, ...]
    num_stacks: int
    stacks_hash: str
    changes: tuple[Change, ...] = ()
    records: tuple[FitStep, ...] = ()

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every training stack comes once."""
        return self.num_stacks / self.config.batch

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "vidlat_version": vidlat.__version__,
            "trains": _KIND,
            "config": self.config.to_dict(),
            "changes": [asdict(change) for change in self.changes],
            "network": dict(self.network),
            "init_hash": self.init_hash,
            "num_stacks": self.num_stacks,
            "steps_per_epoch": self.steps_per_epoch,
            "stacks_hash": self.stacks_hash,
            "training": list(self.training),
            "validation": list(self.validation),
            "clips": list(self.clips),
        }

    @classmethod
    def from_document(cls, document: object) -> Self:
        """The inverse of `to_dict`; raises ValueError or ConfigError for what no training has written."""
        fields = Fields(document, "the run")
        if "trains" not in fields.names() or fields.text("trains") != _KIND:
            raise ValueError("it is no training of a VAE, but of a diffusion model")
        settings = with_pattern(fields.take("config", dict, "an object"))
        FitVAEConfig.from_mapping(settings)  # which knows the limits of each
        config = ChosenFit.from_mapping(settings)
        run = cls(
            config=config,
            network=fields.take("network", dict, "an object"),
            init_hash=fields.text("init_hash"),
            training=fields.texts("training"),
            validation=fields.texts("validation"),
            clips=fields.texts("clips"),
            num_stacks=fields.whole("num_stacks", 1, int(LARGE)),
            stacks_hash=fields.text("stacks_hash"),
            changes=tuple(Change.from_fields(change, config) for change in fields.objects("changes")),
        )
        if config.precision == "auto":
            raise ValueError("precision: got 'auto'; a training has decided on one")
        if not run.training or set(run.training) & set(run.validation):
            raise ValueError("training and validation list no video, or the same one")
        if not set(run.clips) <= set(run.validation):
            raise ValueError("clips: lists a video that validation does not")
        return run


def read_fit(folder: str | Path) -> FitRun:
    """Read the settings and metrics of a VAE's training, which may still go on.

    A line that is still being written is left out. Raises TrainError for a folder that holds no such
    training, or a damaged one.
    """
    folder = local_path(folder)
    run = read_plan(folder)
    path = folder / "metrics.jsonl"
    try:
        lines = read_file(path, DOCUMENT_BYTES).split(b"\n")[:-1]
        records = tuple(FitStep.from_fields(Fields(parse_json(line), "a step")) for line in lines)
    except FileNotFoundError:
        return run
    except (OSError, ValueError) as error:
        raise TrainError(f"{path} cannot be read as the metrics of a training: {one_line(error)}") from error
    return dataclasses.replace(run, records=records)


def read_plan(folder: Path) -> FitRun:
    """As `read_fit`, without the metrics."""
    path = folder / "config.json"
    try:
        return FitRun.from_document(read_json(path, DOCUMENT_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TrainError(
            f"{folder} is no training of a VAE: it has no config.json; start one with `vidlat fit-vae`"
        ) from error
    except (OSError, ValueError, VidlatError) as error:
        raise TrainError(
            f"{path} cannot be read as the settings of a VAE's training: {one_line(error)[:500]}"
        ) from error
