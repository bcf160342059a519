"""`vidlat info`: what is in a cache."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("latents", type=click.Path(path_type=Path))
def info(latents: Path) -> None:
    """Tell what a cache holds: videos, sizes, VAE, settings, failures.

    \b
    Example:
      vidlat info latents.zarr
    """
    from vidlat.cli.display import console, format_bytes, format_seconds
    from vidlat.store.reader import open_cache

    cache = open_cache(latents)
    schema, records, failures = cache.schema, cache.records(), cache.failures()
    settings = schema.settings
    num_frames = sum(record.num_frames for record in records.values())
    seconds = sum(record.num_frames / record.fps for record in records.values() if record.fps)
    warned = sum(bool(record.warnings) for record in records.values())
    latent = f"{schema.latent_dim} x {schema.latent_height} x {schema.latent_width}"
    facts = {
        "videos": f"{len(records)} ({num_frames} frames, {format_seconds(seconds)} of video)",
        "failed": f"{len(failures)}" + (": " + ", ".join(list(failures)[:5]) if failures else ""),
        "with warnings": str(warned),
        "size": format_bytes(cache.num_bytes),
        "latent frames": f"{cache.num_latent_frames}, each {latent} float16, mean and std "
        f"({cache.num_hole_frames} belong to no video)",
        "compression": f"{schema.time_compression} in time, {schema.space_compression} in height and width",
        "VAE": f"{schema.vae_name} (hash {settings.vae_hash[:12]}, licence: {schema.vae_licence})",
        "settings": f"size {settings.size}, fit {settings.fit}, stack {settings.stack}, "
        f"encoded in {settings.encode_precision}",
        "cache_id": schema.cache_id[:16],
        "format": str(schema.format_version),
    }
    for name, fact in facts.items():
        console.print(f"{name:>14}  {fact}", highlight=False, soft_wrap=True)
