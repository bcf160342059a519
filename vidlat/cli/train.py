"""`vidlat train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidlat.cli.options import build_config, config_options
from vidlat.config import TrainConfig


@click.command()
@click.option("--latents", type=click.Path(path_type=Path), required=True, help="The cache to train from.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out from its last checkpoint.")
@config_options(TrainConfig, "train")
def train(latents: Path, out: Path, resume: bool, config_file: Path | None, **flags: Any) -> None:
    """Train a diffusion U-Net straight from a cache.

    The run's folder gets config.json, metrics.jsonl, TensorBoard curves and checkpoints.

    \b
    Example:
      vidlat train --latents latents.zarr --out runs/first --steps 5000
      tensorboard --logdir runs
      vidlat train --latents latents.zarr --out runs/first --resume

    A resumed run keeps its settings; only --steps and --device may be given anew.
    """
    base = None
    if resume:
        from vidlat.train.run import read_run

        base = read_run(out).config
    config = build_config(TrainConfig, "train", config_file, flags, base)
    from vidlat.cli.display import console, format_seconds, progress_bar
    from vidlat.store.reader import open_cache
    from vidlat.train.trainer import Trainer

    trainer = Trainer(config, open_cache(latents), out, resume=resume)
    run, left = trainer.run, config.steps - trainer.state.step
    num_parameters = sum(p.numel() for p in trainer.state.model.parameters())
    console.print(
        f"{len(run.training)} training videos, {len(run.validation)} for validation; "
        f"U-Net {config.preset} with {num_parameters / 1e6:.1f} M parameters "
        f"on {trainer.device} in {trainer.config.precision}"
    )
    for note in trainer.notes:
        console.print(f"Note: {note}")
    if left <= 0:
        console.print(f"Nothing to do: {out} has its {trainer.state.step} steps; more by --steps.")
        return
    estimate = trainer.estimate_seconds_per_step()
    console.print(f"about {format_seconds(estimate * left)} for {left} steps of {estimate:.2f} s")
    columns = (
        "{task.fields[rate]:.2f} steps/s",
        "loss {task.fields[loss]:.4f}",
        "validation {task.fields[validation]}",
    )
    with progress_bar(*columns) as progress:
        bar = progress.add_task(
            "training", total=config.steps, completed=trainer.state.step, rate=0.0, loss=0.0, validation="-"
        )
        loss = None
        try:
            for record in trainer.steps():
                # A single step's loss jumps with its timesteps: people need the trend.
                loss = record.loss if loss is None else 0.95 * loss + 0.05 * record.loss
                progress.update(bar, completed=record.step, rate=record.steps_per_second, loss=loss)
                if record.validation_loss is not None:
                    progress.update(bar, validation=f"{record.validation_loss:.4f}")
        except KeyboardInterrupt:
            progress.stop()
            console.print(
                f"stopped after step {trainer.state.step}; the same command with --resume goes on from the "
                f"last checkpoint (one every {trainer.config.checkpoint_every} steps)"
            )
            raise
    console.print(f"{config.steps} steps -> {out}; next: vidlat sample --run {out} --out samples/")
