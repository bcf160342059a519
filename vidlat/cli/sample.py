"""`vidlat sample` and `vidlat decode`: from latents to video."""

from __future__ import annotations

from pathlib import Path

import click

from vidlat.cli.options import EXIT_SOME_FAILED

VAE_HELP = "Where the VAE of the latents is, if not where it was when they were made."


@click.command()
@click.option("--run", "run_dir", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the videos.")
@click.option("-n", "num_samples", type=click.IntRange(min=1), default=8, show_default=True, help="How many.")
@click.option("--steps", type=click.IntRange(min=1), default=50, show_default=True, help="Denoising steps.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the first sample.")
@click.option("--vae", help=VAE_HELP)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
def sample(
    run_dir: Path, out: Path, num_samples: int, steps: int, seed: int, vae: str | None, device: str
) -> None:
    """Draw new videos from a trained run: mp4 files and a contact sheet.

    Sample number i depends on --seed + i alone, not on how many are drawn.

    \b
    Example:
      vidlat sample --run runs/first --out samples/ -n 8 --seed 1
    """
    from vidlat.cli.display import console, format_count, progress_bar
    from vidlat.evaluate.samples import write_samples

    with progress_bar() as progress:
        task = progress.add_task("sampling", total=num_samples * steps)
        written = write_samples(
            run_dir,
            out,
            seeds=range(seed, seed + num_samples),
            num_steps=steps,
            vae=vae,
            device=device,
            on_step=lambda count: progress.advance(task, count),
        )
    count = format_count(len(written.videos), "video")
    console.print(f"{count} of {format_count(written.num_frames, 'frame')} -> {out}")
    console.print(f"contact sheet -> {written.contact_sheet}")


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
    from vidlat.pipeline.decode import decode_cache, load_vae_of
    from vidlat.store.reader import open_cache

    cache = open_cache(latents)
    failures: list[tuple[str, str]] = []
    frozen = load_vae_of(cache.schema, vae=vae, device=device)
    with progress_bar("{task.fields[name]}") as progress:
        task = progress.add_task("decoding", total=len(cache), name="")
        for video_id, outcome in decode_cache(cache, frozen, out):
            progress.update(task, advance=1, name=printable(video_id))
            if not isinstance(outcome, Path):
                failures.append((video_id, str(outcome)))
    console.print(f"{format_count(len(cache) - len(failures), 'video')} -> {out}")
    if failures:
        print_table(f"{format_count(len(failures), 'video')} failed", ("video", "reason"), failures)
        ctx.exit(EXIT_SOME_FAILED)
