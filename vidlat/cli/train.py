"""`vidlat train`."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidlat.cli.options import build_config, config_options
from vidlat.cli.stopping import stopping
from vidlat.config import TrainConfig

if TYPE_CHECKING:
    from vidlat.train.trainer import Trainer


@click.command()
@click.option("--latents", type=click.Path(path_type=Path), required=True, help="The cache to train from.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out from its last checkpoint.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="CSV or JSONL table with a column video_id; its labels win over those in the cache.",
)
@click.option("--vae", help="Where the VAE of the latents is, for --sample-every, if it has moved.")
@config_options(TrainConfig, "train")
def train(
    latents: Path,
    out: Path,
    resume: bool,
    labels: Path | None,
    vae: str | None,
    config_file: Path | None,
    **flags: Any,
) -> None:
    """Train a diffusion U-Net straight from a cache.

    The run's folder gets config.json, metrics.jsonl, TensorBoard curves, checkpoints and samples.

    \b
    Examples:
      vidlat train --latents latents.zarr --out runs/first --steps 5000 --sample-every 1000
      tensorboard --logdir runs
      vidlat train --latents latents.zarr --out runs/first --resume
      vidlat train --latents latents.zarr --out runs/ef --condition ef:float --split-by patient
      torchrun --nproc-per-node 4 -m vidlat train --latents latents.zarr --out runs/four

    Ctrl-C or SIGTERM ends it after the step under way, with a checkpoint; a second Ctrl-C at once.
    A resumed run keeps its settings; only --steps, --device, --accumulate, --compile,
    --checkpoint-activations, --checkpoint-every, --keep and --sample-every may be given anew.
    """
    base = None
    if resume:
        from vidlat.train.run import read_run

        base = read_run(out).config
    config = build_config(TrainConfig, "train", config_file, flags, base)
    from vidlat.pipeline.manifest import read_labels
    from vidlat.store.reader import open_cache
    from vidlat.train.trainer import Trainer

    told = read_labels(labels) if labels else {}
    cache = open_cache(latents)
    trainer = Trainer(config, cache, out, resume=resume, labels=told)
    if trainer.state.step < config.steps:
        seconds = trainer.estimate_seconds_per_step()  # by all processes, which wait for each other
    if not trainer.ranks.is_first:
        with stopping(trainer.stop):
            deque(trainer.steps(), maxlen=0)
        return
    from vidlat.cli.display import console, format_seconds

    _introduce(trainer)
    left = config.steps - trainer.state.step
    if left <= 0:
        console.print(f"Nothing to do: {out} has its {trainer.state.step} steps; more by --steps.")
        return
    console.print(f"about {format_seconds(seconds * left)} for {left} steps of {seconds:.2f} s")
    _train(trainer, vae)
    if trainer.state.step < config.steps:
        console.print(
            f"stopped and saved after step {trainer.state.step}: go on by the same command and --resume"
        )
        raise KeyboardInterrupt
    console.print(f"{config.steps} steps -> {out}; next: vidlat sample --run {out} --out samples/")


def _introduce(trainer: Trainer) -> None:
    from vidlat.cli.display import console

    run, config = trainer.run, trainer.config
    num_parameters = sum(p.numel() for p in trainer.state.model.parameters())
    many = f", {trainer.ranks.count} processes" if trainer.ranks.count > 1 else ""
    console.print(
        f"{len(run.training)} training videos, {len(run.validation)} for validation; "
        f"{config.network} U-Net {config.preset} with {num_parameters / 1e6:.1f} M parameters "
        f"on {trainer.device} in {config.precision}{many}"
    )
    for note in trainer.notes:
        console.print(f"Note: {note}", markup=False)


def _train(trainer: Trainer, vae: str | None) -> None:
    from vidlat.cli.display import progress_bar
    from vidlat.sample.during_training import steps_with_samples

    config = trainer.config
    columns = (
        "{task.fields[rate]:.2f} steps/s",
        "loss {task.fields[loss]:.4f}",
        "validation {task.fields[validation]}",
    )
    with progress_bar(*columns) as progress:
        bar = progress.add_task(
            "training", total=config.steps, completed=trainer.state.step, rate=0.0, loss=0.0, validation="-"
        )
        (task,) = progress.tasks

        def stop() -> None:
            trainer.stop()
            task.description = "stopping soon"  # without the locks of `update`, which may be held

        loss = None
        with stopping(stop):
            for record in steps_with_samples(trainer, vae=vae):
                # A single step's loss jumps with its timesteps: people need the trend.
                loss = record.loss if loss is None else 0.95 * loss + 0.05 * record.loss
                progress.update(bar, completed=record.step, rate=record.steps_per_second, loss=loss)
                if record.validation_loss is not None:
                    progress.update(bar, validation=f"{record.validation_loss:.4f}")
