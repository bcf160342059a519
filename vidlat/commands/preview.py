"""`vidlat preview`: a picture of some videos of a cache."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import console, format_count, print_table, progress_bar
from vidlat.errors import ExitCode
from vidlat.evaluate.preview import write_preview
from vidlat.pipeline.decode_videos import load_vae_of
from vidlat.store.layout import require_outside_caches
from vidlat.store.reader import open_cache
from vidlat.video.writer import prepare_file


def preview(latents: str | Path, out: Path, videos: int, vae: str | None, device: str) -> ExitCode:
    """Write the picture, and report videos without source and damaged ones."""
    cache = open_cache(latents)
    require_outside_caches(out)
    prepare_file(out, "--out")
    frozen = load_vae_of(cache.schema, vae=vae, device=device, batch=1)
    with progress_bar("{task.fields[name]}") as progress:
        task = progress.add_task("decoding", total=min(videos, len(cache)), name="")
        made = write_preview(
            cache, frozen, out, videos, lambda name: progress.update(task, advance=1, name=name)
        )
    if made.without_source:
        print_table("Shown without their source", ("video", "why"), list(made.without_source.items()))
    console.print(f"{format_count(len(made.shown), 'video')} -> {out}")
    if made.damaged:
        print_table("Left out", ("video", "why"), list(made.damaged.items()))
        return ExitCode.SOME_FAILED
    return ExitCode.DONE
