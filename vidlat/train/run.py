"""A run's folder: what is frozen when training starts, and what must still hold when it goes on.

config.json     settings, cache and VAE, split, whitening, the videos with their checksums
metrics.jsonl   one line a step         tensorboard/   the same as curves
checkpoints/    see checkpoint.py
lock            held while a trainer lives
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from torch import nn

import vidlat
from vidlat.config import TrainConfig
from vidlat.errors import ConfigError, StoreError, TrainError
from vidlat.store.filesystem import locked
from vidlat.store.reader import LatentCache
from vidlat.store.schema import CacheSchema
from vidlat.train.checkpoint import (
    best_checkpoint,
    list_checkpoints,
    load_ema,
    remove_partial_checkpoints,
    step_of,
    write_synced,
)
from vidlat.train.conditioning import Conditions
from vidlat.train.latents import Whitening
from vidlat.train.split import near_duplicates, split_videos, subjects_of
from vidlat.train.unet import build_unet
from vidlat.train.windows import WindowShape
from vidlat.types import Annotation, VideoRecord

BuildModel = Callable[..., nn.Module]
"""As `unet.build_unet`."""

MAY_CHANGE = (
    "steps", "device", "accumulate", "compile", "checkpoint_activations",
    "checkpoint_every", "keep", "sample_every",
)  # fmt: skip
"""Settings that a resumed run may change: how long it goes on, where and how, and what is kept and shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run freezes. The cache may grow afterwards; the videos listed here may not change.

    config: its precision is never `auto`. checksums: each listed video's latent_crc32. labels: of each listed
    video, those that the network is conditioned on. duplicates: pairs of a validation and a training video
    that are as good as alike. median_fps: of the training videos, 0.0 where none knows its rate.
    """

    config: TrainConfig
    schema: CacheSchema
    training: tuple[str, ...]
    validation: tuple[str, ...]
    checksums: dict[str, int]
    whitening: Whitening
    median_fps: float
    conditions: Conditions
    labels: dict[str, dict[str, str]]
    duplicates: tuple[tuple[str, str], ...] = ()

    @classmethod
    def plan(
        cls, config: TrainConfig, cache: LatentCache, labels: Mapping[str, Annotation] = MappingProxyType({})
    ) -> Self:
        """Decide everything that a new run freezes.

        labels: by video_id; they win over what the cache knows, label by label. Raises TrainError for a cache
        without videos, a clip that is no whole number of stacks, and labels that do not do.
        """
        records = cache.records()
        if not records:
            raise TrainError("the cache holds no video to train on; fill it with `vidlat encode`")
        annotations = _joined(cache.annotations(), labels, records)
        subjects = subjects_of(records, annotations, config.split_by)
        training, validation = split_videos(subjects, config.validation_fraction)
        told = {video_id: annotation.labels for video_id, annotation in annotations.items()}
        conditions = Conditions.plan(config.condition, [told.get(video_id, {}) for video_id in training])
        rates = [records[video_id].fps for video_id in training if records[video_id].fps > 0]
        run = cls(
            config=config,
            schema=cache.schema,
            training=training,
            validation=validation,
            checksums={video_id: record.latents.crc32 for video_id, record in records.items()},
            whitening=Whitening.from_records((records[id] for id in training), config.latents_as),
            median_fps=statistics.median(rates) if rates else 0.0,
            conditions=conditions,
            labels={video_id: conditions.pick(told.get(video_id, {})) for video_id in records},
        )
        run.window_shape()
        if config.first_frame and run.window_shape().num_latent_frames < 2:
            raise TrainError("first_frame: a clip of one latent frame has none to go on with; raise --frames")
        known, held_out = ([records[id] for id in ids] for ids in (training, validation))
        duplicates = near_duplicates(cache, known, held_out, run.whitening)
        return dataclasses.replace(run, duplicates=tuple(duplicates))

    def features(self) -> dict[str, np.ndarray] | None:
        """The condition of each listed video, (D,); None where the network takes none."""
        if not self.conditions.num_features:
            return None
        return {video_id: self.conditions.encode_known(labels) for video_id, labels in self.labels.items()}

    def build_network(self, build_model: BuildModel) -> nn.Module:
        """A freshly initialised network of the run's kind."""
        return build_model(
            self.config.network,
            self.config.preset,
            self.schema.latent_dim,
            num_features=self.conditions.num_features,
            takes_first_frame=self.config.first_frame > 0,
        )

    def window_shape(self) -> WindowShape:
        """The windows that a clip of the run's length makes in its cache."""
        return WindowShape.of_clip(
            self.config.frames,
            stack=self.schema.settings.stack,
            time_compression=self.schema.time_compression,
        )

    def latent_shape(self) -> tuple[int, int, int, int]:
        """(L, t, h, w) of one window."""
        schema, length = self.schema, self.window_shape().num_latent_frames
        return schema.latent_dim, length, schema.latent_height, schema.latent_width

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "vidlat_version": vidlat.__version__,
            "config": self.config.to_dict(),
            "cache": self.schema.to_attributes(),
            "whitening": self.whitening.to_dict(),
            "median_fps": self.median_fps,
            "training": list(self.training),
            "validation": list(self.validation),
            "latent_crc32": self.checksums,
            "conditions": self.conditions.to_list(),
            "labels": self.labels,
            "duplicates": [list(pair) for pair in self.duplicates],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(
            config=TrainConfig.from_mapping(values["config"]),
            schema=CacheSchema.from_attributes(values["cache"]),
            whitening=Whitening.from_dict(values["whitening"]),
            median_fps=values["median_fps"],
            training=tuple(values["training"]),
            validation=tuple(values["validation"]),
            checksums=values["latent_crc32"],
            conditions=Conditions.from_list(values["conditions"]),
            labels=values["labels"],
            duplicates=tuple((held_out, trained) for held_out, trained in values["duplicates"]),
        )


def _joined(
    known: Mapping[str, Annotation], told: Mapping[str, Annotation], records: Mapping[str, VideoRecord]
) -> dict[str, Annotation]:
    """What is known of each video; raises TrainError for a table that tells of none of them."""
    if told and not told.keys() & records.keys():
        raise TrainError(
            f"labels: none of the {len(told)} rows is of a video of the cache; video_id must be as "
            f"`vidlat ls` shows it, such as {next(iter(records))}"
        )
    nothing = Annotation("", {})
    pairs = {video_id: (known.get(video_id, nothing), told.get(video_id, nothing)) for video_id in records}
    return {
        video_id: Annotation(new.subject or old.subject, {**old.labels, **new.labels})
        for video_id, (old, new) in pairs.items()
    }


def read_run(run_dir: Path) -> Run:
    """What the run in a folder has frozen; raises TrainError if the folder holds no run."""
    path = run_dir / "config.json"
    try:
        return Run.from_dict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TrainError(f"{run_dir} is no run: it has no config.json; `vidlat train` makes one") from error
    except (OSError, ValueError, KeyError, TypeError, ConfigError, StoreError) as error:
        raise TrainError(f"{path} cannot be read as a run's settings: {error}") from error


def hold_run(run_dir: Path) -> ExitStack:
    """Keep every other trainer out of a run's folder, until the result is closed or dropped.

    Makes the folder if it is not there. Raises TrainError if another trainer holds it.
    """
    held = ExitStack()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(run_dir / "lock", wait=False))
    except BlockingIOError as error:
        raise TrainError(f"another process trains in {run_dir}: wait, or give another --out") from error
    except OSError as error:
        raise TrainError(f"{run_dir}: cannot hold a run ({error}); give another --out") from error
    return held


def start_run(run_dir: Path, run: Run) -> None:
    """Freeze a new run into its folder, over what a start without a checkpoint left there.

    Raises TrainError if the folder holds a run that can be gone on with.
    """
    checkpoints = run_dir / "checkpoints"
    if list_checkpoints(checkpoints):
        raise TrainError(f"{run_dir} holds a run already: go on with it by --resume, or give another --out")
    try:
        if (run_dir / "config.json").exists():
            (run_dir / "metrics.jsonl").unlink(missing_ok=True)
            shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)
            remove_partial_checkpoints(checkpoints)
    except OSError as error:
        raise TrainError(f"{run_dir}: cannot hold a run ({error}); give another --out") from error
    write_run(run_dir, run)


def resume_run(
    config: TrainConfig,
    cache: LatentCache,
    run_dir: Path,
    labels: Mapping[str, Annotation] = MappingProxyType({}),
) -> Run:
    """The run in a folder with the settings to go on with; `auto` precision means the run's own.

    The labels are the run's; those given must be the same. Writes nothing. Raises TrainError naming what
    differs: settings other than `MAY_CHANGE`, the cache, a listed video, or a label of one.
    """
    run = read_run(run_dir)
    if config.precision == "auto":
        config = dataclasses.replace(config, precision=run.config.precision)
    before, now = run.config.to_dict(), config.to_dict()
    changed = [name for name in now if now[name] != before[name] and name not in MAY_CHANGE]
    if changed:
        pairs = "; ".join(f"{name}: the run has {before[name]}, you asked {now[name]}" for name in changed)
        raise TrainError(f"{run_dir} cannot go on with other settings ({pairs}); or give another --out")
    _require_same_videos(run, cache, run_dir)
    _require_same_labels(run, labels, run_dir)
    return dataclasses.replace(run, config=config)


def _require_same_videos(run: Run, cache: LatentCache, run_dir: Path) -> None:
    if cache.schema.cache_id != run.schema.cache_id:
        differences = run.schema.settings.differences(cache.schema.settings)
        raise TrainError(
            f"{run_dir} was trained on a cache with other settings ({', '.join(differences)} differ); "
            "give the cache it was started with"
        )
    records = cache.records()
    gone = [video_id for video_id in run.checksums if video_id not in records]
    changed = [
        video_id
        for video_id, checksum in run.checksums.items()
        if video_id in records and records[video_id].latents.crc32 != checksum
    ]
    if gone or changed:
        what = [f"{verb} {_shorten(ids)}" for verb, ids in (("gone:", gone), ("changed:", changed)) if ids]
        raise TrainError(
            f"{run_dir} cannot go on: videos of the cache are {'; '.join(what)}; "
            "restore them, or start a new run with another --out"
        )


def _require_same_labels(run: Run, labels: Mapping[str, Annotation], run_dir: Path) -> None:
    told = {video_id: run.conditions.pick(labels[video_id].labels) for video_id in labels.keys() & run.labels}
    changed = [video_id for video_id, new in told.items() if not new.items() <= run.labels[video_id].items()]
    if changed:
        raise TrainError(
            f"{run_dir} cannot go on: labels of {_shorten(sorted(changed))} are not those it began with; "
            "leave --labels out, or start a new run with another --out"
        )


def _shorten(ids: list[str], most: int = 5) -> str:
    shown = ", ".join(ids[:most])
    return f"{shown} and {len(ids) - most} more" if len(ids) > most else shown


def write_run(run_dir: Path, run: Run) -> None:
    """Write config.json atomically; raises TrainError if the folder does not take it."""
    partial = run_dir / "config.json.partial"
    try:
        write_synced(partial, json.dumps(run.to_dict(), indent=2) + "\n")
        partial.replace(run_dir / "config.json")
    except OSError as error:
        raise TrainError(f"{run_dir}: cannot hold a run ({error}); give another --out") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """A run's averaged weights after `step` steps, in evaluation mode on the CPU, and what it has frozen."""

    run: Run
    model: nn.Module
    step: int


def load_run(run_dir: Path, *, best: bool = False, build_model: BuildModel = build_unet) -> TrainedRun:
    """The newest checkpoint of a run, or that with the lowest validation loss.

    Raises TrainError for a folder without a run or without such a checkpoint.
    """
    run, directory = read_run(run_dir), run_dir / "checkpoints"
    checkpoints = list_checkpoints(directory)
    if not checkpoints:
        raise TrainError(f"{run_dir} has no checkpoint yet; train on with --resume")
    chosen = best_checkpoint(directory) if best else checkpoints[-1]
    if chosen is None:
        raise TrainError(f"{run_dir} has no checkpoint with a validation loss; take the last one")
    model = run.build_network(build_model)
    load_ema(chosen, model)
    return TrainedRun(run=run, model=model.requires_grad_(False).eval(), step=step_of(chosen))
