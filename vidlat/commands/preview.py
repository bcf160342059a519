"""`vidlat preview`: a picture of some videos of a cache."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import console, print_table, progress_bar
from vidlat.errors import ConfigError, ExitCode
from vidlat.evaluate.preview import write_preview
from vidlat.pipeline.decode_videos import load_vae_of
from vidlat.store.layout import require_outside_caches
from vidlat.store.reader import open_cache
from vidlat.video.writer import prepare_file
from vidlat.wording import format_count


def preview(
    latents: str | Path, out: Path | None, video: Path | None, videos: int, vae: str | None, device: str
) -> ExitCode:
    """Write the picture and the video, and report videos without source and damaged ones."""
    written = {flag: path for flag, path in {"--out": out, "--video": video}.items() if path}
    if not written:
        raise ConfigError("what is to be written? --out PICTURE.png, --video VIDEO.mp4 or both")
    cache = open_cache(latents)
    for flag, path in written.items():
        require_outside_caches(path)
        prepare_file(path, flag)
    frozen = load_vae_of(cache.schema, vae=vae, device=device, batch=1)
    with progress_bar("{task.fields[name]}") as progress:
        task = progress.add_task("decoding", total=min(videos, len(cache)), name="")
        made = write_preview(
            cache, frozen, out, videos, lambda name: progress.update(task, advance=1, name=name), video=video
        )
    if made.without_source:
        print_table("Shown without their source", ("video", "why"), list(made.without_source.items()))
    console.print(f"{format_count(len(made.shown), 'video')} -> {', '.join(map(str, written.values()))}")
    if made.damaged:
        print_table("Left out", ("video", "why"), list(made.damaged.items()))
        return ExitCode.SOME_FAILED
    return ExitCode.DONE
