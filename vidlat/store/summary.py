"""Summary of a cache, as `vidlat info` shows it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vidlat.store.layout import FAILURES, LEFTOVER, RECORDS
from vidlat.store.metadata import array_frames
from vidlat.store.reader import LatentCache, open_cache
from vidlat.store.records.tables import SOURCE_COLUMNS, to_source
from vidlat.store.schema import CacheSchema
from vidlat.store.sources import source_state
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache
from vidlat.store.writing.lease import LeaseHolder, read_lease
from vidlat.types import Annotation, FailureRecord

MOST_NAMES = 5
"""Videos that a summary names per kind."""

MOST_VALUES = 10
"""Values of a label that a summary names."""

MOST_SOURCES_CHECKED = 20_000
"""Source files that a summary checks, in 50 ms on a local disk and seconds over a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoGroup:
    """Some videos of a cache: how many, and the ids of the first."""

    num_videos: int
    first: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelValues:
    """What a label says of the videos of a cache.

    num_videos: that have it. num_values: different ones. counts: videos by value, the MOST_VALUES
    commonest; as many in order, numbers by size.
    lowest, highest: where all values are numbers, else None.
    """

    num_videos: int
    num_values: int
    counts: dict[str, int]
    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a cache for writing, dead or alive. host, pid: None if unknown."""

    purpose: str
    host: str | None
    pid: int | None
    since: str
    silent_seconds: float
    is_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSummary:
    """Content and state of a cache; docs/reference/info.md describes every field.

    num_bytes: of all files; None where they cannot be listed. num_frames: of the videos. seconds: of the
    videos whose frame rate is known. num_latent_frames: length of the time axis, of which
    num_used_latent_frames belong to videos, stack padding included. num_dead_shards, num_dead_bytes: see
    DiskUsage. failures: by kind. dropped: removed by their id. stale, vanished, unknown: states of the
    num_sources_checked sources, which are spread evenly over the cache. labels: by name, the recorded
    subject among them. unfinished: signs of an interrupted command, one line each.
    """

    path: str
    schema: CacheSchema
    num_videos: int
    num_frames: int
    seconds: float
    num_bytes: int | None
    num_latent_frames: int
    num_used_latent_frames: int
    num_dead_shards: int
    num_dead_bytes: int
    num_failed: int
    failures: dict[str, VideoGroup]
    dropped: VideoGroup
    with_warnings: VideoGroup
    labels: dict[str, LabelValues]
    num_sources_checked: int
    stale: VideoGroup
    vanished: VideoGroup
    unknown: VideoGroup
    holder: Holder | None
    unfinished: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The summary as values for JSON."""
        values = dataclasses.asdict(self)
        return {"path": values.pop("path")} | {"cache_id": self.schema.cache_id} | values


def summarise(where: str | Path) -> CacheSummary:
    """Summarise a cache from its records and the sizes of its files. Raises StoreError if there is none."""
    return summarise_open(open_cache(where, hold=False))


def summarise_open(cache: LatentCache) -> CacheSummary:
    """As `summarise`, of a cache as it was when it was opened: videos that came since are not in it."""
    totals, failures = cache.columns("num_frames", "fps"), cache.failures()
    usage = cache.disk_usage() if cache.storage.is_listed else None
    frames_and_rates = zip(totals["num_frames"], totals["fps"], strict=True)
    states = _source_states(cache)
    holder = None if cache.is_remote else read_lease(cache.path)
    return CacheSummary(
        path=cache.where,
        schema=cache.schema,
        num_videos=len(cache),
        num_frames=sum(totals["num_frames"]),
        seconds=sum(num_frames / fps for num_frames, fps in frames_and_rates if fps),
        num_bytes=usage.num_bytes if usage else None,
        num_latent_frames=cache.num_latent_frames,
        num_used_latent_frames=cache.num_latent_frames - cache.num_hole_frames,
        num_dead_shards=usage.num_dead_shards if usage else 0,
        num_dead_bytes=usage.num_dead_bytes if usage else 0,
        num_failed=len(failures),
        failures=_by_kind(failures),
        dropped=_group(cache.dropped()),
        with_warnings=_group(cache.warnings()),
        labels=_label_values(cache.annotations().values()),
        num_sources_checked=len(states),
        stale=_group(video_id for video_id, state in states.items() if state == "stale"),
        vanished=_group(video_id for video_id, state in states.items() if state == "vanished"),
        unknown=_group(video_id for video_id, state in states.items() if state == "unknown"),
        holder=_to_holder(holder) if holder else None,
        unfinished=() if cache.is_remote else tuple(_unfinished(cache.path, cache.schema, holder)),
    )


def compression_in_time(schema: CacheSchema) -> str:
    """Such as `4 video frames per latent frame`, with the VAE's own compression where it is another."""
    ratio, by_vae = schema.timing.frames_per_stored_latent, schema.time_compression
    also = f" (the VAE compresses time by {by_vae})" if ratio != by_vae else ""
    return f"{ratio:.3g} video frame{'s' * (ratio != 1)} per latent frame{also}"


def _source_states(cache: LatentCache) -> dict[str, str]:
    """The state of every source, or of every n-th where there are many, by video_id."""
    step = max(1, -(-len(cache) // MOST_SOURCES_CHECKED))
    rows = islice(cache.rows("video_id", *SOURCE_COLUMNS), 0, None, step)
    return {
        video_id: source_state(to_source(*cells), may_be_elsewhere=cache.is_remote)
        for video_id, *cells in rows
    }


def _by_kind(failures: Mapping[str, FailureRecord]) -> dict[str, VideoGroup]:
    kinds: dict[str, list[str]] = {}
    for video_id, failure in failures.items():
        kinds.setdefault(failure.kind, []).append(video_id)
    return {kind: _group(kinds[kind]) for kind in sorted(kinds)}


def _group(video_ids: Iterable[str]) -> VideoGroup:
    ids: Sequence[str] = list(video_ids)
    return VideoGroup(num_videos=len(ids), first=tuple(ids[:MOST_NAMES]))


def _label_values(annotations: Iterable[Annotation]) -> dict[str, LabelValues]:
    """By label, sorted; the recorded subject, which stands first, is one of them."""
    counts: dict[str, Counter[str]] = {}
    for annotation in annotations:
        for name, value in annotation.columns().items():
            counts.setdefault(name, Counter())[value] += 1
    return {
        name: _values_of(counts[name]) for name in sorted(counts, key=lambda name: (name != "subject", name))
    }


def _values_of(counts: Counter[str]) -> LabelValues:
    try:
        numbers = [float(value) for value in counts]
    except ValueError:
        numbers = []
    is_finite = bool(numbers) and all(map(math.isfinite, numbers))
    common = sorted(
        counts.items(), key=lambda item: (-item[1], float(item[0]) if is_finite else 0.0, item[0])
    )
    return LabelValues(
        num_videos=counts.total(),
        num_values=len(counts),
        counts=dict(common[:MOST_VALUES]),
        lowest=min(numbers) if is_finite else None,
        highest=max(numbers) if is_finite else None,
    )


def _to_holder(holder: LeaseHolder) -> Holder:
    process = holder.process
    return Holder(
        purpose=holder.purpose,
        host=process.host if process else None,
        pid=process.pid if process else None,
        since=holder.since,
        silent_seconds=holder.silent_seconds,
        is_alive=holder.is_alive(),
    )


def _unfinished(path: Path, schema: CacheSchema, holder: LeaseHolder | None) -> Iterable[str]:
    """Traces of a killed command; while a process holds the cache, they may be its own."""
    if holder and holder.is_alive():
        return
    if holder:
        yield f"{holder} ended without releasing the cache; the next command takes it over"
    lengths = array_frames(local_cache(path), schema)
    if len(set(lengths.values())) > 1:
        by_array = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        yield f"the arrays differ in latent frames ({by_array}): the next encode completes the growth"
    for folder in (RECORDS, FAILURES):
        for name in filter(LEFTOVER.fullmatch, filesystem.list_names(path / folder)):
            yield f"{folder}/{name} was left unfinished: `vidlat prune` deletes it"
