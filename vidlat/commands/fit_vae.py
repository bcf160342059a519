"""`vidlat fit-vae`: shows the progress of reading and training, and ends it in order when interrupted."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any

from vidlat.commands.display import console, progress_bar, quoted
from vidlat.config import FitVAEConfig
from vidlat.evaluate.quality import psnr_of
from vidlat.fit.run import WEIGHTS, FitStep, read_plan
from vidlat.fit.trainer import VAETrainer, VideoRead
from vidlat.interrupts import stopping
from vidlat.wording import format_count


def fit_vae(
    inputs: tuple[str, ...], out: Path, resume: bool, labels: Path | None, settings: dict[str, Any]
) -> None:
    """Read the videos and train, with progress bars in the first process."""
    base = read_plan(out).config.to_dict() if resume else {}
    config = FitVAEConfig.from_mapping(FitVAEConfig.overruled(base, settings))
    config.require_effect(settings)
    with closing(VAETrainer(inputs, out, config, resume=resume, labels=labels)) as trainer:
        if trainer.ranks.is_first:
            _read(trainer)
            _train(trainer)
        else:
            deque(trainer.read(), maxlen=0)
            with stopping(trainer.stop):
                deque(trainer.steps(), maxlen=0)


def _read(trainer: VAETrainer) -> None:
    with progress_bar() as progress:
        bar = progress.add_task("reading", total=None)
        for event in trainer.read():
            progress.update(bar, completed=event.number, total=event.num_sources)
            if event.failure:
                console.print(f"{event.video_id}: {event.failure}; left out")
    _introduce(trainer, event)
    for note in trainer.notes:
        console.print(f"Note: {note}")


def _introduce(trainer: VAETrainer, last: VideoRead) -> None:
    run, config = trainer.run, trainer.settings
    num_parameters = sum(p.numel() for p in trainer.state.model.parameters())
    many = f", {trainer.ranks.count} processes" if trainer.ranks.count > 1 else ""
    stacks = f"{format_count(run.num_stacks, 'stack')} of {format_count(config.stack, 'frame')}"
    console.print(
        f"{stacks} from {format_count(last.num_videos, 'video')}, {format_count(len(run.clips), 'clip')} to "
        f"validate; a VAE with {num_parameters / 1e6:.1f} M parameters on {trainer.ranks.device} in "
        f"{config.precision}{many}; {config.steps / run.steps_per_epoch:.3g} epochs"
    )


def _train(trainer: VAETrainer) -> None:
    config, folder = trainer.settings, trainer.folder
    if (step := trainer.state.step) >= config.steps:
        console.print(
            f"Nothing to do: {folder} has taken {format_count(step, 'step')}, and --steps asks for "
            f"{config.steps}; give more than {step}.",
            soft_wrap=True,
        )
        return
    if trainer.state.step:
        steps = f"step {trainer.state.step:,} of {config.steps:,}"
        console.print(f"Resuming {folder} from {steps}.", soft_wrap=True)
    columns = ("{task.fields[rate]:.2f} steps/s", "{task.fields[training]}", "{task.fields[validation]}")
    with progress_bar(*columns) as progress:
        bar = progress.add_task(
            "training", total=config.steps, completed=trainer.state.step, rate=0.0, training="", validation=""
        )
        (task,) = progress.tasks

        def stop() -> None:
            trainer.stop()
            task.description = "stopping soon"  # `update` takes a lock, which the interrupted code may hold

        with stopping(stop):
            for record in trainer.steps():
                progress.update(bar, completed=record.step, **_shown(record))
    if trainer.state.num_skipped:
        skipped = format_count(trainer.state.num_skipped, "step")
        console.print(f"Note: {skipped} skipped, their loss or gradient not being finite")
    if trainer.state.step < config.steps:
        console.print(
            f"stopped and saved after step {trainer.state.step}; the same command with --resume continues"
        )
        raise KeyboardInterrupt
    console.print(
        f"{format_count(config.steps, 'step')} -> {folder}; weights for --vae: {quoted(folder / WEIGHTS)}"
    )


def _shown(record: FitStep) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if record.step and not record.is_skipped:
        shown |= {"rate": record.steps_per_second, "training": f"PSNR {psnr_of(record.mse):.2f} dB"}
    if record.validation:
        figures = record.validation
        shown["validation"] = f"held out {figures['psnr']:.2f} dB, SSIM {figures['ssim']:.3f}"
    return shown
