"""What a run freezes when it starts: settings, cache, split, whitening, and the checksums of its videos."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import nn

import vidlat
from vidlat.checked_settings import MANY
from vidlat.config import TrainConfig
from vidlat.documents import Fields
from vidlat.errors import TrainError
from vidlat.labels import rows_by_id, rows_of
from vidlat.store.reader import LatentCache
from vidlat.store.schema import CacheSchema
from vidlat.train.changes import Change
from vidlat.train.conditioning import Conditions
from vidlat.train.latents import Whitening
from vidlat.train.split import near_duplicates, split_videos, stated_split, subjects_of
from vidlat.train.windows import WindowShape
from vidlat.types import Annotation

MAX_FPS = 1e6
"""A higher frame rate is a mistake of the file, and no video file can have it."""

BuildModel = Callable[..., nn.Module]
"""A function with the parameters of `unet.build_unet`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The frozen facts of a run. The cache may grow afterwards; the videos listed here may not change.

    config: the present settings; the precision is never `auto`. changes: of the settings, as they came.
    checksums: CRC-32C of the latents by video_id. labels: by video_id, those that the network is conditioned
    on. duplicates: pairs of a validation and a training video that are nearly the same. median_fps: of the
    training videos with a known rate up to MAX_FPS, else 0.0.
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
    changes: tuple[Change, ...] = ()

    @classmethod
    def plan(cls, config: TrainConfig, cache: LatentCache, labels: Mapping[str, Annotation]) -> Self:
        """Decide everything that a new run freezes.

        labels: by the id of a video or its source; they override those in the cache, label by label. Raises
        TrainError for an empty cache, a clip that is not whole stacks, labels of no video in the cache,
        InputError as `rows_by_id`, and ConfigError or TrainError for conditions or a split that the labels do
        not allow.
        """
        records = cache.records()
        if not records:
            raise TrainError("the cache holds no video to train on; fill it with `vidlat encode`")
        labels = rows_by_id(labels, {id: record.source.selection for id, record in records.items()})
        rows = {id: rows_of(labels, id, record.source.selection) for id, record in records.items()}
        if labels and not any(rows.values()):
            raise TrainError(
                f"labels: none of the {len(labels)} rows names a video of the cache; expected video_id as "
                f"`vidlat ls` shows it, such as {next(iter(records))}"
            )
        known = cache.annotations()
        annotations = {
            id: known.get(id, Annotation()).updated(row or Annotation()) for id, row in rows.items()
        }
        sources = {id: record.source for id, record in records.items()}
        training, validation = stated_split(annotations, config.split_by) or split_videos(
            subjects_of(sources, annotations, config.split_by), config.validation_fraction
        )
        conditions = Conditions.plan(
            config.condition, [annotations[video_id].labels for video_id in training]
        )
        rates = [fps for video_id in training if 0 < (fps := records[video_id].fps) <= MAX_FPS]
        run = cls(
            config=config,
            schema=cache.schema,
            training=training,
            validation=validation,
            checksums={video_id: record.latents.crc32c for video_id, record in records.items()},
            whitening=Whitening.from_records((records[id] for id in training), config.latents_as),
            median_fps=statistics.median(rates) if rates else 0.0,
            conditions=conditions,
            labels={video_id: conditions.pick(annotations[video_id].labels) for video_id in records},
        )
        run._require_trainable_clips()
        trained, held_out = ([records[id] for id in ids] for ids in (training, validation))
        duplicates = near_duplicates(cache, trained, held_out, run.whitening)
        return dataclasses.replace(run, duplicates=tuple(duplicates))

    def _require_trainable_clips(self) -> None:
        num_latent_frames = self.window_shape().num_latent_frames
        if self.config.first_frame and num_latent_frames < 2:
            raise TrainError(
                f"first_frame: clips of {self.config.frames} frames have one latent frame, so nothing is "
                "left to predict when it is given; raise --frames"
            )

    def features(self) -> dict[str, np.ndarray] | None:
        """The features (D,) of each listed video's condition; None without conditions."""
        if not self.conditions.num_features:
            return None
        return {video_id: self.conditions.encode_known(labels) for video_id, labels in self.labels.items()}

    def build_network(self, build_model: BuildModel) -> nn.Module:
        """Build the run's network, newly initialised."""
        return build_model(
            self.config.network,
            self.config.preset,
            self.schema.latent_dim,
            num_features=self.conditions.num_features,
            takes_first_frame=self.config.first_frame > 0,
        )

    def subjects(self, cache: LatentCache) -> dict[str, str]:
        """The subject of each video of the run's cache, as the split took them; by recorded subject or source
        where the split was stated by a label, or by labels that are not in the cache.
        """
        sources, annotations, split_by = cache.sources(), cache.annotations(), self.config.split_by
        known = {video_id: annotations.get(video_id, Annotation()) for video_id in sources}
        try:
            is_stated = stated_split(known, split_by) is not None
            return subjects_of(sources, known, None if is_stated else split_by)
        except TrainError:
            return subjects_of(sources, known, None)

    def window_shape(self) -> WindowShape:
        """The windows of a training clip; raises TrainError if the clip is not whole stacks."""
        return WindowShape.of_clip(self.config.frames, self.schema.timing)

    def latent_shape(self) -> tuple[int, int, int, int]:
        """The shape (L, t, h, w) of one window."""
        schema, length = self.schema, self.window_shape().num_latent_frames
        return schema.latent_dim, length, schema.latent_height, schema.latent_width

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "vidlat_version": vidlat.__version__,
            "config": self.config.to_dict(),
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "cache": self.schema.to_attributes(),
            "whitening": self.whitening.to_dict(),
            "median_fps": self.median_fps,
            "training": list(self.training),
            "validation": list(self.validation),
            "latent_crc32c": self.checksums,
            "conditions": self.conditions.to_list(),
            "labels": self.labels,
            "duplicates": [list(pair) for pair in self.duplicates],
        }

    @classmethod
    def from_document(cls, document: object) -> Self:
        """The inverse of `to_dict`.

        Raises ValueError, ConfigError, StoreError or TrainError for what no run has written.
        """
        fields = Fields(document, "the run")
        config = TrainConfig.from_mapping(fields.take("config", dict, "an object"))
        schema = CacheSchema.from_attributes(fields.take("cache", dict, "an object"))
        _require_usable(Fields(schema.to_attributes(), "cache"))
        labels = fields.fields("labels")
        changes = fields.objects("changes") if "changes" in fields.names() else []
        run = cls(
            config=config,
            schema=schema,
            whitening=Whitening.from_fields(fields.fields("whitening"), schema.latent_dim),
            median_fps=fields.number("median_fps", 0, MAX_FPS),
            training=fields.texts("training"),
            validation=fields.texts("validation"),
            checksums=fields.fields("latent_crc32c").wholes(0, 2**32 - 1),
            conditions=Conditions.from_fields(fields.objects("conditions")),
            labels={video_id: labels.fields(video_id).all_texts() for video_id in labels.names()},
            duplicates=tuple(fields.pairs("duplicates")),
            changes=tuple(Change.from_fields(change, config) for change in changes),
        )
        listed = {*run.training, *run.validation}  # those for testing are in neither
        if not run.training or not listed <= run.checksums.keys() == run.labels.keys():
            raise ValueError("training, validation, latent_crc32c and labels do not list the same videos")
        if len(set(listed)) < len(listed):
            raise ValueError("training and validation list a video twice")
        if run.config.precision == "auto":
            raise ValueError("precision: got 'auto'; a run has decided on one")
        run._require_trainable_clips()
        return run


def _require_usable(cache: Fields) -> None:
    """Raise ValueError for a cache whose latents no network could take."""
    for name in ("vae_name", "vae_hash", "vae_licence", "vae_path"):
        cache.text(name)
    cache.whole("latent_dim", 1, 4096)
    for name in ("latent_height", "latent_width", "space_compression"):
        cache.whole(name, 1, MANY)
