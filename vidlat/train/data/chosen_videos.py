"""Which videos of a cache a training takes, with their labels, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidlat.config import TrainConfig
from vidlat.errors import ConfigError, TrainError
from vidlat.labels.matching import match_labels
from vidlat.labels.reading import read_labels
from vidlat.labels.split import VideoSplit, decide_split
from vidlat.paths import local_path
from vidlat.store.reader import LatentCache, open_cache
from vidlat.types import Annotation, VideoRecord
from vidlat.where import KnownVideo, videos_where


@dataclass(frozen=True, slots=True)
class ChosenVideos:
    """The videos that a training takes, by video_id, their subjects and labels, and the parts they are in."""

    records: Mapping[str, VideoRecord]
    annotations: Mapping[str, Annotation]
    split: VideoSplit


def plan_split(
    latents: str | Path, settings: TrainConfig | None = None, *, labels: str | Path | None = None
) -> VideoSplit:
    """The videos of a cache for training, validation and test, as `train_unet` would take them.

    settings: those of the split and `where`; by default a tenth of the subjects is held out. labels: a table
    whose labels take precedence over those in the cache. Raises StoreError if `latents` is not a cache,
    InputError for a wrong table, and ConfigError or TrainError as `choose_videos`.
    """
    cache = open_cache(latents, hold=False)
    return choose_videos(settings or TrainConfig(), cache, read_labels_for(cache, labels)).split


def choose_videos(config: TrainConfig, cache: LatentCache, labels: Mapping[str, Annotation]) -> ChosenVideos:
    """Choose the videos that a training takes, and their parts.

    labels: by video_id; they override those in the cache, label by label. Raises TrainError for an empty
    cache, and ConfigError for a selection of videos or a split that the labels do not allow.
    """
    records = cache.records()
    if not records:
        raise TrainError("the cache holds no video to train on; fill it with `vidlat encode`")
    annotations = annotations_with(cache, labels)
    records = _selected(config.where, records, annotations)
    annotations = {id: annotations[id] for id in records}
    sources = {id: record.source for id, record in records.items()}
    split = decide_split(sources, annotations, config, config.validation_fraction)
    if config.validation_fraction and not split.validation:
        raise _nothing_to_validate(split)
    return ChosenVideos(records, annotations, split)


def read_labels_for(cache: LatentCache, table: str | Path | None) -> dict[str, Annotation]:
    """The rows of a table of labels by video_id, none without one; raises InputError as `match_labels`."""
    if table is None:
        return {}
    return dict(match_labels(read_labels(local_path(table)), cache.sources()).rows)


def annotations_with(cache: LatentCache, labels: Mapping[str, Annotation]) -> dict[str, Annotation]:
    """Subject and labels of every video of a cache, those of `labels` in place of its own."""
    known, none = cache.annotations(), Annotation()
    return {id: known.get(id, none).updated(labels.get(id, none)) for id in cache.records()}


def _nothing_to_validate(split: VideoSplit) -> ConfigError:
    if split.stated_by:
        why = f"{split.stated_by} states no video for validation; name some there"
    else:
        why = f"all {len(split.training)} videos are of one subject; say by --split-by what a subject is"
    return ConfigError(
        f"validation_fraction: nothing can be held out: {why}, or train without validation, by "
        "--validation-fraction 0"
    )


def _selected(
    where: str | None, records: Mapping[str, VideoRecord], annotations: Mapping[str, Annotation]
) -> dict[str, VideoRecord]:
    """The records of the videos for which a condition holds; raises ConfigError where there are none."""
    if where is None:
        return dict(records)
    facts = (
        KnownVideo(id, annotations[id].subject, record.num_frames, record.fps, annotations[id].labels)
        for id, record in records.items()
    )
    return {id: records[id] for id in videos_where(where, facts)}
