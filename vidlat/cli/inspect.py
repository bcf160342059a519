"""`vidlat info`: what is in a cache."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from pathlib import Path

import click

MOST_NAMES_SHOWN = 5


@click.command()
@click.argument("latents", type=click.Path(path_type=Path))
def info(latents: Path) -> None:
    """Tell what a cache holds: videos, sizes, VAE, settings, failures.

    \b
    Example:
      vidlat info latents.zarr
    """
    from vidlat.cli.display import console, format_bytes, format_count, format_seconds
    from vidlat.store.reader import open_cache

    cache = open_cache(latents)
    schema, records, failures = cache.schema, cache.records(), cache.failures()
    settings = schema.settings
    num_frames = sum(record.num_frames for record in records.values())
    seconds = sum(record.num_frames / record.fps for record in records.values() if record.fps)
    warned = [video_id for video_id, record in records.items() if record.warnings]
    num_used = cache.num_latent_frames - cache.num_hole_frames
    latent = f"{schema.latent_dim} x {schema.latent_height} x {schema.latent_width}"
    facts = {
        "videos": f"{len(records)} ({format_count(num_frames, 'frame')}, {format_seconds(seconds)} of video)",
        "failed": _count_and_names(failures),
        "with warnings": _count_and_names(warned),
        "size": format_bytes(cache.num_bytes),
        "latent frames": f"{num_used} used, each {latent} float16, mean and std; "
        f"{cache.num_latent_frames} reserved, empty space takes no disk",
        "compression": f"{schema.time_compression} in time, {schema.space_compression} in height and width",
        "VAE": f"{schema.vae_name} (hash {settings.vae_hash[:12]}, licence: {schema.vae_licence})",
        "settings": f"size {settings.size}, fit {settings.fit}, stack {settings.stack}, "
        f"encoded in {settings.encode_precision}",
        "cache_id": schema.cache_id[:16],
        "format": str(schema.format_version),
    }
    for name, fact in facts.items():
        console.print(f"{name:>14}  {fact}", soft_wrap=True)


def _count_and_names(video_ids: Collection[str]) -> str:
    from vidlat.cli.display import printable

    names = [printable(video_id) for video_id in islice(video_ids, MOST_NAMES_SHOWN)]
    more = ", ..." if len(video_ids) > len(names) else ""
    return f"{len(video_ids)}" + (f": {', '.join(names)}{more}" if names else "")
