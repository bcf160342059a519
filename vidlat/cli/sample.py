"""`vidlat sample` and `vidlat decode`: from latents to video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidlat.cli.options import EXIT_SOME_FAILED, build_config, config_options
from vidlat.config import SampleConfig

VAE_HELP = "Where the VAE of the latents is, if not where it was when they were made."


@click.command()
@click.option("--run", "run_dir", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the videos.")
@click.option("--vae", help=VAE_HELP)
@config_options(SampleConfig, "sample")
def sample(run_dir: Path, out: Path, vae: str | None, config_file: Path | None, **flags: Any) -> None:
    """Draw new videos from a trained run, and a contact sheet of them.

    \b
    Examples:
      vidlat sample --run runs/first --out samples/ -n 8 --seed 1
      vidlat sample --run runs/first --out samples/ --sampler heun --steps 25 --checkpoint best
      vidlat sample --run runs/ef --out samples/ --condition severity=mild --condition ef=35 --guidance 2
      vidlat sample --run runs/moving --out samples/ --first-frame frame.png --frames 48
    """
    from vidlat.cli.display import console, format_count, progress_bar
    from vidlat.sample.videos import CONTACT_SHEET, MAX_ROWS, sample_videos

    config = build_config(SampleConfig, "sample", config_file, flags)
    num = 0
    with progress_bar() as progress:
        task = progress.add_task("sampling", total=config.num)
        samples = sample_videos(
            run_dir, out, config, vae=vae, on_progress=lambda share: progress.advance(task, share)
        )
        try:
            for num, _ in enumerate(samples, 1):  # noqa: B007
                pass
            progress.update(task, completed=config.num)  # a sum of parts is off by rounding
        except KeyboardInterrupt:
            progress.stop()
            if left := config.num - num:
                told = f"--seed {config.seed + num} -n {left} makes the others"
                console.print(f"{num} of {format_count(config.num, 'sample')} written; {told}")
            raise
    console.print(f"{format_count(num, 'video')} -> {out}")
    shown = f" (the first {MAX_ROWS})" if num > MAX_ROWS else ""
    console.print(f"contact sheet{shown} -> {out / CONTACT_SHEET}")


@click.command()
@click.option("--latents", type=click.Path(path_type=Path), required=True, help="The cache to decode.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the videos.")
@click.option("--vae", help=VAE_HELP)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.pass_context
def decode(ctx: click.Context, /, latents: Path, out: Path, vae: str | None, device: str) -> None:
    """Decode a cache back to video: one mp4 a video, with its own frame count and median rate.

    \b
    Example:
      vidlat decode --latents latents.zarr --out recon/

    \b
    Exit codes: 0 all done, 1 refused, 2 wrong flags, 3 some videos failed, 130 interrupted.
    """
    from vidlat.cli.display import console, format_count, print_table, printable, progress_bar
    from vidlat.pipeline.decode_videos import decode_videos
    from vidlat.store.reader import open_cache

    num_videos = len(open_cache(latents))
    failures: list[tuple[str, str]] = []
    with progress_bar("{task.fields[name]}") as progress:
        task = progress.add_task("decoding", total=num_videos, name="")
        for video_id, outcome in decode_videos(latents, out, vae=vae, device=device):
            progress.update(task, advance=1, name=printable(video_id))
            if not isinstance(outcome, Path):
                failures.append((video_id, str(outcome)))
    console.print(f"{format_count(num_videos - len(failures), 'video')} -> {out}")
    if failures:
        print_table(f"{format_count(len(failures), 'video')} failed", ("video", "reason"), failures)
        ctx.exit(EXIT_SOME_FAILED)
