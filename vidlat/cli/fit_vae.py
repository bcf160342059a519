"""`vidlat fit-vae`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidlat.cli.options import build_config, config_options
from vidlat.config import FitVAEConfig, Preprocessing


@click.command()
@click.option(
    "--input", "inputs", multiple=True, required=True, help="File, folder or glob; may be repeated."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write.")
@config_options(FitVAEConfig, "fit-vae")
def fit_vae(inputs: tuple[str, ...], out: Path, config_file: Path | None, **flags: Any) -> None:
    """Train a small VAE of MAISI's class on your videos, or fine-tune weights given by --init.

    From scratch it starts at the best linear code (PCA) and improves on it. The file is written every
    --save-every steps; after an interruption, `--init FILE` goes on from it.

    \b
    Example:
      vidlat fit-vae --input videos/ --out vae.safetensors --steps 1000
      vidlat encode --input videos/ --out latents.zarr --vae vae.safetensors --size 128
    """
    config = build_config(FitVAEConfig, "fit-vae", config_file, flags)
    from vidlat.cli.display import console, format_count, printable, progress_bar
    from vidlat.encode.weights import resolve_weights
    from vidlat.errors import ConfigError, DecodeError
    from vidlat.pipeline.discover import discover_videos
    from vidlat.train.vae_fitting import StackCollection, check_fit
    from vidlat.train.vae_fitting import fit_vae as fit
    from vidlat.video.reader import read_prepared
    from vidlat.video.writer import prepare_file

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: weights are written as .safetensors; give such a name")
    init = resolve_weights(config.init) if config.init else None
    check_fit(config, init)
    sources = discover_videos(inputs).sources
    prepare_file(out)
    stacks = StackCollection(config)
    with progress_bar() as progress:
        for source in progress.track(sources, description="reading"):
            try:
                frames = read_prepared(source.path, source.selection, config.select(Preprocessing))
                stacks.add_video(frame.pixels for frame in frames)
            except DecodeError as error:
                console.print(f"{printable(source.video_id)}: {error}; left out")
    count = f"{format_count(len(stacks), 'stack')} of {format_count(config.stack, 'frame')}"
    console.print(f"{count} from {format_count(stacks.num_videos, 'video')}")
    shown = "PSNR {task.fields[psnr]:.2f} dB"
    with progress_bar(shown) as progress:
        task = progress.add_task("fitting", total=config.steps, psnr=0.0)
        for record in fit(stacks, config, out, init):
            progress.update(task, completed=record.step, psnr=record.psnr)
    console.print(f"weights -> {out}")
