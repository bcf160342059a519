"""`vidlat fit-vae`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidlat.commands.display import console, format_count, printable, progress_bar
from vidlat.config import FitVAEConfig, Preprocessing
from vidlat.encode.weights import resolve_weights
from vidlat.errors import ConfigError, DecodeError
from vidlat.pipeline.discover import discover_videos
from vidlat.train.vae_fitting import StackCollection, check_fit
from vidlat.train.vae_fitting import fit_vae as fit
from vidlat.video.reader import read_prepared
from vidlat.video.writer import prepare_file


def fit_vae(inputs: tuple[str, ...], out: Path, settings: dict[str, Any]) -> None:
    """Read the videos, fit the VAE and write it."""
    config = FitVAEConfig.from_mapping(settings)
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
