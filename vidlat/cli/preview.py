"""`vidlat preview`: a picture of what is in a cache."""

from __future__ import annotations

from pathlib import Path

import click

from vidlat.cli.options import EXIT_SOME_FAILED


@click.command()
@click.argument("latents", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The PNG to write.")
@click.option(
    "--videos", type=click.IntRange(min=1), default=6, show_default=True, help="How many to show, at most."
)
@click.option("--vae", help="Where the VAE of the latents is, if not where it was when they were made.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.pass_context
def preview(
    ctx: click.Context, /, latents: Path, out: Path, videos: int, vae: str | None, device: str
) -> None:
    """Show some videos of a cache: frames of the source as the VAE saw them, the decoded ones below.

    The videos are spread evenly over the sorted ids, the frames over the video. PSNR is that of the frames
    shown. A source that is gone or has changed is left out.

    \b
    Example:
      vidlat preview latents.zarr --out preview.png

    \b
    Exit codes: 0 all done, 1 refused, 2 wrong flags, 3 some videos are damaged, 130 interrupted.
    """
    from vidlat.cli.display import console, format_count, print_table, printable, progress_bar
    from vidlat.evaluate.preview import write_preview
    from vidlat.pipeline.decode_videos import load_vae_of
    from vidlat.store.reader import open_cache
    from vidlat.video.writer import prepare_file

    cache = open_cache(latents)
    prepare_file(out, "--out")
    frozen = load_vae_of(cache.schema, vae=vae, device=device, batch=1)
    with progress_bar("{task.fields[name]}") as progress:
        task = progress.add_task("decoding", total=min(videos, len(cache)), name="")
        made = write_preview(
            cache, frozen, out, videos, lambda name: progress.update(task, advance=1, name=printable(name))
        )
    if made.without_source:
        print_table("Shown without their source", ("video", "why"), list(made.without_source.items()))
    console.print(f"{format_count(len(made.shown), 'video')} -> {out}")
    if made.damaged:
        print_table("Left out", ("video", "why"), list(made.damaged.items()))
        ctx.exit(EXIT_SOME_FAILED)
