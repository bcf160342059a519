"""What a run freezes when it starts: settings, cache, split, whitening, and the checksums of its videos."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np

import vidlat
from vidlat.config import TrainConfig
from vidlat.documents import Fields
from vidlat.errors import ConfigError
from vidlat.labels.split import run_subjects
from vidlat.labels.subjects import subjects_of
from vidlat.store.reader import LatentCache
from vidlat.train.data.chosen_videos import choose_videos
from vidlat.train.data.duplicates import near_duplicates
from vidlat.train.data.latents import Whitening
from vidlat.train.objectives.conditioning import Conditions
from vidlat.train.objectives.timesteps import DRAWS_VERSION
from vidlat.train.runs.changes import Change
from vidlat.train.runs.frozen_model import MAX_FPS, FrozenModel
from vidlat.train.runs.origin import Origin
from vidlat.types import Annotation, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(FrozenModel):
    """The frozen facts of a run. The cache may grow afterwards; the videos listed here may not change.

    changes: of the settings, as they came. checksums: CRC-32C of the latents by video_id. labels: by
    video_id, those that the network is conditioned on. duplicates: pairs of a validation and a training video
    that are nearly the same. origin: where its first weights came from; None for random ones.
    num_subjects: in the parts for training, validation and test; empty in runs of before it was recorded.
    stated_by: what states the split, in words; empty where subjects were held out.
    draws_version: how it draws, see `timesteps.DRAWS_VERSION`.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    checksums: dict[str, int]
    labels: dict[str, dict[str, str]]
    num_subjects: Mapping[str, int] = field(default_factory=dict)
    stated_by: str = ""
    duplicates: tuple[tuple[str, str], ...] = ()
    changes: tuple[Change, ...] = ()
    origin: Origin | None = None
    draws_version: int = DRAWS_VERSION

    @classmethod
    def plan(cls, config: TrainConfig, cache: LatentCache, labels: Mapping[str, Annotation]) -> Self:
        """Decide everything that a new run freezes.

        labels: by video_id; they override those in the cache, label by label. Raises as `choose_videos`,
        TrainError for a clip that is not whole stacks, and ConfigError or TrainError for conditions that the
        labels do not allow.
        """
        chosen = choose_videos(config, cache, labels)
        records, annotations, split = chosen.records, chosen.annotations, chosen.split
        training, validation = split.training, split.validation
        conditions = Conditions.plan(
            config.condition, [annotations[video_id].labels for video_id in training]
        )
        rates = [fps for video_id in training if 0 < (fps := records[video_id].fps) <= MAX_FPS]
        run = cls(
            config=config,
            schema=cache.schema,
            training=training,
            validation=validation,
            num_subjects=split.num_subjects,
            stated_by=split.stated_by,
            checksums={video_id: record.latents.crc32c for video_id, record in records.items()},
            whitening=Whitening.from_records((records[id] for id in training), config.latents_as),
            median_fps=statistics.median(rates) if rates else 0.0,
            conditions=conditions,
            labels={video_id: conditions.pick(annotations[video_id].labels) for video_id in records},
        )
        run.require_trainable_clips()
        return run._holding_out(validation, cache)

    def tested(self, cache: LatentCache) -> Self:
        """The same run with the videos for testing in place of those for validation.

        Raises ConfigError where the split has none.
        """
        if not self.test:
            raise ConfigError(
                "held_out: got test, and no video was kept for testing; `vidlat split` writes a split that "
                "has such videos, for `vidlat train --split`"
            )
        return self._holding_out(self.test, cache)

    def _holding_out(self, validation: tuple[str, ...], cache: LatentCache) -> Self:
        """The same run with these videos for validation, and its near-duplicates among them."""
        records = cache.records()
        trained, held_out = ([records[id] for id in ids] for ids in (self.training, validation))
        duplicates = near_duplicates(cache, trained, held_out, self.whitening)
        return replace(self, validation=validation, duplicates=tuple(duplicates))

    def features(self) -> dict[str, np.ndarray] | None:
        """The features (D,) of each listed video's condition; None without conditions."""
        if not self.conditions.num_features:
            return None
        return {video_id: self.conditions.encode_known(labels) for video_id, labels in self.labels.items()}

    def training_labels(self, name: str) -> list[str]:
        """A label of each training video that has it."""
        return [self.labels[video_id][name] for video_id in self.training if name in self.labels[video_id]]

    def sources(self, cache: LatentCache) -> dict[str, Source]:
        """The source of each video of the run's cache."""
        return {id: source for id, source in cache.sources().items() if id in self.checksums}

    def subjects(self, cache: LatentCache) -> dict[str, str]:
        """The subject of each video of the run's cache, as the split took them.

        Where the cache lacks the label that told them, these are recorded subjects, or sources.
        """
        sources, annotations = self.sources(cache), cache.annotations()
        try:
            return run_subjects(sources, annotations, self.config)
        except ConfigError:
            return subjects_of(sources, annotations)

    @property
    def test(self) -> tuple[str, ...]:
        """The videos that were in the cache and are used for neither training nor validation."""
        used = {*self.training, *self.validation}
        return tuple(video_id for video_id in self.checksums if video_id not in used)

    @property
    def duplicated(self) -> list[str]:
        """The validation videos that nearly equal a training video."""
        return sorted({video_id for video_id, _ in self.duplicates})

    @property
    def held_out(self) -> list[str]:
        """The other validation videos, which tell what the run has not seen."""
        duplicated = set(self.duplicated)
        return [video_id for video_id in self.validation if video_id not in duplicated]

    @property
    def model(self) -> FrozenModel:
        """The run without its videos."""
        return FrozenModel(**{field.name: getattr(self, field.name) for field in fields(FrozenModel)})

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "vidlat_version": vidlat.__version__,
            **self.model.to_dict(),
            "changes": [asdict(change) for change in self.changes],
            "training": list(self.training),
            "validation": list(self.validation),
            "num_subjects": dict(self.num_subjects),
            "split_stated_by": self.stated_by,
            "latent_crc32c": self.checksums,
            "labels": self.labels,
            "duplicates": [list(pair) for pair in self.duplicates],
            "draws_version": self.draws_version,
            **({"origin": self.origin.to_dict()} if self.origin else {}),
        }

    @classmethod
    def from_document(cls, document: object) -> Self:
        """The inverse of `to_dict`.

        Raises ValueError, ConfigError, StoreError or TrainError for what no run has written.
        """
        values = Fields(document, "the run")
        model, labels = FrozenModel.from_fields(values), values.fields("labels")
        changes = values.objects("changes") if "changes" in values.names() else []
        run = cls(
            **{field.name: getattr(model, field.name) for field in fields(model)},
            training=values.texts("training"),
            validation=values.texts("validation"),
            checksums=values.fields("latent_crc32c").wholes(0, 2**32 - 1),
            labels={video_id: labels.fields(video_id).all_texts() for video_id in labels.names()},
            **_facts_of_split(values),
            duplicates=tuple(values.pairs("duplicates")),
            changes=tuple(Change.from_fields(change, model.config) for change in changes),
            draws_version=values.whole("draws_version", 1, 1000) if "draws_version" in values.names() else 1,
            origin=Origin.from_fields(values.fields("origin")) if "origin" in values.names() else None,
        )
        listed = (*run.training, *run.validation)  # those for testing are in neither
        if not run.training or not set(listed) <= run.checksums.keys() == run.labels.keys():
            raise ValueError("training, validation, latent_crc32c and labels do not list the same videos")
        if len(set(listed)) < len(listed):
            raise ValueError("training and validation list a video twice")
        return run


def _facts_of_split(run: Fields) -> dict[str, Any]:
    """What earlier runs did not record."""
    if "split_stated_by" not in run.names():
        return {}
    num_subjects = run.fields("num_subjects").wholes(0, 10**9)
    return {"num_subjects": num_subjects, "stated_by": run.text("split_stated_by")}
