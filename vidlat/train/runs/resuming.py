"""What must still hold when a run is resumed: its settings, its videos and their labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vidlat.config import TrainConfig
from vidlat.config.train import RECORDED
from vidlat.errors import TrainError
from vidlat.store.reader import LatentCache
from vidlat.train.objectives.timesteps import DRAWS_VERSION
from vidlat.train.runs.changes import changes_after
from vidlat.train.runs.checkpoint_list import last_step
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.origin import Origin
from vidlat.train.runs.presence import require_same_settings
from vidlat.train.runs.run_folder import checkpoint_folder, read_run
from vidlat.train.runs.warm_start import place_of
from vidlat.types import Annotation
from vidlat.wording import shorten


def resume_run(
    settings: TrainConfig,
    cache: LatentCache,
    run_dir: Path,
    labels: Mapping[str, Annotation],
) -> Run:
    """The run in a folder with the settings to continue with.

    Precision `auto` and 0 threads mean the run's own. labels: by video_id; none, or the ones the run was
    started with. A run that distils may name another place of its teacher, whose weights are compared later.
    Writes nothing. Raises TrainError naming what differs: settings other than `MAY_CHANGE`, the cache, a
    listed video, or a label of one.
    """
    run = read_run(run_dir)
    if run.draws_version != DRAWS_VERSION:
        raise TrainError(
            f"{run_dir} cannot be resumed: it was started by a vidlat that drew other timesteps of the same "
            f"seed; start from its weights, with --init {run_dir} and another --out"
        )
    if settings.precision == "auto":
        settings = dataclasses.replace(settings, precision=run.config.precision)
    settings = dataclasses.replace(settings, threads=settings.threads or run.config.threads)
    require_same_settings(run_dir, run.config, settings)
    require_same_videos(run, cache, run_dir)
    _require_same_labels(run, labels, run_dir)
    step = last_step(checkpoint_folder(run_dir))
    changes = changes_after(run.changes, run.config, settings, RECORDED, step)
    return dataclasses.replace(run, config=settings, changes=changes, origin=_origin_now(run, settings))


def _origin_now(run: Run, settings: TrainConfig) -> Origin | None:
    """The origin of a run; of one that distils, where the settings say that its teacher is now."""
    if not (run.origin and settings.distil):
        return run.origin
    place = place_of(settings.distil)
    # The same name, perhaps of an earlier call, may mean another place from another working folder.
    is_same = settings.distil == run.config.distil
    if is_same and (Path(run.origin.source).exists() or not Path(place).exists()):
        return run.origin
    return dataclasses.replace(run.origin, source=place)


def require_same_videos(run: Run, cache: LatentCache, run_dir: Path) -> None:
    """Raise TrainError unless the cache holds the videos that the run lists, unchanged, in its settings."""
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
        if video_id in records and records[video_id].latents.crc32c != checksum
    ]
    if gone or changed:
        what = [f"{verb} {shorten(ids)}" for verb, ids in (("gone:", gone), ("changed:", changed)) if ids]
        raise TrainError(
            f"{run_dir} does not fit the cache {cache.where}: its videos are {'; '.join(what)}; restore "
            "them, or start a new run with another --out"
        )


def _require_same_labels(run: Run, labels: Mapping[str, Annotation], run_dir: Path) -> None:
    conditions, changed = run.conditions, []
    for video_id in labels.keys() & run.labels.keys():
        old = run.labels[video_id]
        new = old | conditions.pick(labels[video_id].labels)
        # 3 and 3.0 are one: what counts is what the network is told.
        if not np.array_equal(conditions.encode_known(old), conditions.encode_known(new)):
            changed.append(video_id)
    if changed:
        raise TrainError(
            f"{run_dir} cannot be resumed: labels of {shorten(sorted(changed))} differ from those it was "
            "started with; leave --labels out, or start a new run with another --out"
        )
