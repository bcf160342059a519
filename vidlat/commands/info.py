"""`vidlat info`: a cache at a glance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vidlat.commands.display import console, echo_json, format_bytes
from vidlat.config import MANTISSA_BITS
from vidlat.store.summary import CacheSummary, Holder, VideoGroup, compression_in_time, summarise
from vidlat.wording import format_count, format_seconds


def info(latents: str | Path, as_json: bool) -> None:
    """Print what a cache holds."""
    summary = summarise(latents)
    if as_json:
        echo_json(summary.to_dict())
        return
    for name, fact in _facts(summary):
        console.print(f"{name:>14}  {fact}", soft_wrap=True)


def _facts(summary: CacheSummary) -> Iterator[tuple[str, str]]:
    """Lines of a name and a text; the name is empty where a line continues the one before."""
    yield from _contents(summary)
    yield from _labels(summary)
    yield from _sources(summary)
    yield from _making(summary)
    if summary.holder and summary.holder.is_alive:
        yield "in use by", _describe(summary.holder)
    for sign in summary.unfinished:
        yield "unfinished", sign


def _contents(summary: CacheSummary) -> Iterator[tuple[str, str]]:
    schema = summary.schema
    counts = f"{format_count(summary.num_frames, 'frame')}, {format_seconds(summary.seconds)} of video"
    yield "videos", f"{summary.num_videos} ({counts})"
    latent = f"{schema.latent_dim} x {schema.latent_height} x {schema.latent_width} float16"
    yield (
        "latent frames",
        f"{summary.num_used_latent_frames} used, each {latent}, mean and std; "
        f"{summary.num_latent_frames} reserved, empty space takes no disk",
    )
    unlisted = "unknown: a web server does not list its files"
    yield "size", unlisted if summary.num_bytes is None else format_bytes(summary.num_bytes)
    if summary.num_dead_shards:
        shards = f"{format_bytes(summary.num_dead_bytes)} in {format_count(summary.num_dead_shards, 'shard')}"
        busy = summary.holder is not None and summary.holder.is_alive
        why = "being written, or left over" if busy else "`vidlat prune` frees it"
        yield "", f"including {shards} without a video: {why}"


def _labels(summary: CacheSummary) -> Iterator[tuple[str, str]]:
    for number, (name, values) in enumerate(summary.labels.items()):
        if values.lowest is not None and values.num_values > len(values.counts):
            what = f"{values.lowest:g} to {values.highest:g}"
        elif values.num_values > len(values.counts):
            what = f"{values.num_values:,} values"
        else:
            what = _values(values.counts)
        lack = summary.num_videos - values.num_videos
        few = f"; {format_count(lack, 'video')} without it" if lack else ""
        yield "" if number else "labels", f"{name}: {what}{few}"


def _values(counts: Mapping[str, int]) -> str:
    """Such as `A4C (17 videos), A2C (3)`."""
    (first, number), *others = counts.items()
    return ", ".join(
        [f"{first} ({format_count(number, 'video')})", *(f"{value} ({count:,})" for value, count in others)]
    )


def _sources(summary: CacheSummary) -> Iterator[tuple[str, str]]:
    for kind, group in summary.failures.items():
        yield "failed", f"{kind} {_count_and_names(group)}"
    if not summary.failures:
        yield "failed", "0"
    if summary.dropped.num_videos:
        names = _count_and_names(summary.dropped)
        yield "dropped", f"{names} (left out by encode but with --restore; `vidlat ls --dropped`)"
    yield "with warnings", _count_and_names(summary.with_warnings)
    few = summary.num_sources_checked < summary.num_videos
    among = f" (of {summary.num_sources_checked} checked; `vidlat ls` checks all)" if few else ""
    yield "changed since", _count_and_names(summary.stale) + among
    yield "vanished since", _count_and_names(summary.vanished) + among
    if summary.unknown.num_videos:
        yield "inaccessible", _count_and_names(summary.unknown) + among


def _making(summary: CacheSummary) -> Iterator[tuple[str, str]]:
    schema, settings = summary.schema, summary.schema.settings
    yield (
        "compression",
        f"{compression_in_time(schema)}, {schema.space_compression} in height and width",
    )
    hashes = f"hash {schema.vae_hash[:12]}, its encoder's {settings.encoder_hash[:12]}"
    yield "VAE", f"{schema.vae_name} ({hashes}, licence: {schema.vae_licence})"
    yield (
        "settings",
        f"size {settings.size}, fit {settings.fit}, crop {settings.crop}, "
        f"{f'{settings.fps:g} fps' if settings.fps else 'all frames'}, intensity {settings.intensity}, "
        f"stack {settings.stack}, "
        + (f"overlap {settings.overlap} ({settings.blend}), " * (settings.overlap > 0))
        + (f"each frame shown {settings.stretch} times ({settings.stretch_by}), " * (settings.stretch > 1))
        + f"encoded in {settings.precision}"
        + (f", {settings.keepbits} mantissa bits kept" if settings.keepbits < MANTISSA_BITS else ""),
    )
    if schema.ids == "hash":
        yield "ids", "hashes of paths; no file name is stored"
    yield "cache_id", schema.cache_id[:16]
    yield "format", str(schema.format_version)


def _describe(holder: Holder) -> str:
    who = f"process {holder.pid} on {holder.host}" if holder.host else "an unknown process"
    return f"{holder.purpose} ({who}, since {holder.since})"


def _count_and_names(group: VideoGroup) -> str:
    names = ", ".join(group.first)
    more = ", ..." if group.num_videos > len(group.first) else ""
    return f"{group.num_videos}" + (f": {names}{more}" if names else "")
