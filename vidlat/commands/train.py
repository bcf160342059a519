"""`vidlat train`: shows the progress of a training, and ends it in order when interrupted."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from vidlat.commands.display import console, progress_bar, quoted
from vidlat.config import TrainConfig
from vidlat.errors import ConfigError
from vidlat.interrupts import stopping
from vidlat.labels.reading import read_labels
from vidlat.sample.during_training import steps_with_samples
from vidlat.store.reader import open_cache
from vidlat.train.networks.compiled import is_compiled
from vidlat.train.runs.notes import chosen_in_words, split_in_words
from vidlat.train.runs.run_folder import read_run
from vidlat.train.trainer import Trainer
from vidlat.wording import format_count, format_seconds


def train(
    latents: str | Path,
    out: Path,
    resume: bool,
    labels: Path | None,
    vae: str | None,
    settings: dict[str, Any],
) -> None:
    """Train, with a progress bar in the first process."""
    base = read_run(out).config.to_dict() if resume else {}
    config = TrainConfig.from_mapping(base | settings)
    config.require_effect(settings)
    if vae and not config.sample_every:
        raise ConfigError("vae: has no effect where no samples are drawn; give a --sample-every above 0")
    annotations = read_labels(labels) if labels else {}
    cache = open_cache(latents)
    trainer = Trainer(config, cache, out, resume=resume, labels=annotations)
    is_first, left = trainer.ranks.is_first, max(config.steps - trainer.state.step, 0)
    is_finished = trainer.is_finished
    if is_first and resume and not is_finished:
        console.print(f"Resuming {out} from step {trainer.state.step:,} of {config.steps:,}.", soft_wrap=True)
    if is_first:
        _introduce(trainer)
    if not is_finished:  # in every process: they wait for each other
        trainer.choose_threads()
        seconds = trainer.estimate_seconds_per_step()
        validation_seconds = trainer.estimate_seconds_per_validation()
    if not is_first:
        with stopping(trainer.stop):
            deque(trainer.steps(), maxlen=0)
        return
    if is_finished:
        _tell_nothing_to_do(trainer)
        return
    for note in trainer.notes:  # compiling, which may fail, has been tried
        _show_note(note)
    num_validations = trainer.num_validations_left()
    whole = format_seconds(seconds * left + validation_seconds * num_validations)
    also = f" and {format_count(num_validations, 'validation')} of {format_seconds(validation_seconds)}"
    steps = f"{format_count(left, 'step')} of {format_seconds(seconds)}{also if num_validations else ''}"
    samples = "; the samples of --sample-every take more" if config.sample_every else ""
    console.print(f"about {whole} for {steps}{samples}")
    _train(trainer, vae)
    if trainer.state.num_skipped:
        _show_note(f"{_skipped(trainer.state.num_skipped)}, their loss or gradient not being finite")
    if not trainer.is_finished:
        console.print(
            f"stopped and saved after step {trainer.state.step}; the same command with --resume continues"
        )
        raise KeyboardInterrupt
    if trainer.stopped_early:
        console.print(f"stopped early after step {trainer.state.step}: {_why_early(trainer)}", soft_wrap=True)
    done = format_count(trainer.state.step, "step")
    flags = [f"--condition {quoted(text)}" for text in trainer.run.conditions.examples()]
    flags += ["--checkpoint best"] if trainer.stopped_early else []
    command = " ".join(["vidlat sample", f"--run {quoted(out)}", "--out samples/", *flags])
    console.print(f"{done} -> {out}; next: {command}", soft_wrap=True, markup=False)


def _tell_nothing_to_do(trainer: Trainer) -> None:
    step, asked = trainer.state.step, trainer.settings.steps
    done = (
        f"{trainer.run_dir} has taken {format_count(step, 'step')}, and --steps asks for {asked}; "
        f"give more than {step}"
    )
    if trainer.stopped_early:
        done = (
            f"{trainer.run_dir} was stopped early, {_why_early(trainer)}; a larger --patience, or 0, goes on"
        )
    console.print(f"Nothing to do: {done}.", soft_wrap=True)


def _why_early(trainer: Trainer) -> str:
    best, number = trainer.best, format_count(trainer.best.patience, "validation")
    return f"no validation loss below {best.loss:.4g}, that of step {best.step}, in {number}"


def _introduce(trainer: Trainer) -> None:
    run, config = trainer.run, trainer.settings
    num_parameters = sum(p.numel() for p in trainer.state.model.parameters())
    many = f", {trainer.ranks.count} processes" if trainer.ranks.count > 1 else ""
    compiled = ", compiled" if is_compiled(config.compile, trainer.device) else ""
    if chosen := chosen_in_words(run, len(trainer.cache)):
        console.print(chosen, soft_wrap=True)
    console.print(split_in_words(run), soft_wrap=True)
    console.print(
        f"{config.network} U-Net {config.preset} with {num_parameters / 1e6:.1f} M parameters "
        f"on {trainer.device} in {config.precision}{compiled}{many}"
    )


def _show_note(note: str) -> None:
    console.print(f"Note: {note}")


def _skipped(number: int) -> str:
    return f"{format_count(number, 'step')} skipped"


def _train(trainer: Trainer, vae: str | None) -> None:
    config = trainer.settings
    columns = (
        "{task.fields[rate]:.2f} steps/s",
        "loss {task.fields[loss]:.4f}",
        "validation {task.fields[validation]}",
        "{task.fields[skipped]}",
    )
    with progress_bar(*columns) as progress:
        bar = progress.add_task(
            "training", total=config.steps, completed=trainer.state.step,
            rate=0.0, loss=0.0, validation="-", skipped="",
        )  # fmt: skip
        (task,) = progress.tasks

        def stop() -> None:
            trainer.stop()
            task.description = "stopping soon"  # `update` takes a lock, which the interrupted code may hold

        loss, num_skipped = None, 0
        with stopping(stop):
            for record in steps_with_samples(trainer, vae=vae, show_notice=_show_note):
                if record.is_skipped:
                    num_skipped += 1
                    progress.update(bar, skipped=_skipped(num_skipped))
                else:  # the loss of a single step depends on its random timesteps: show the trend
                    loss = record.loss if loss is None else 0.95 * loss + 0.05 * record.loss
                progress.update(bar, completed=record.step, rate=record.steps_per_second, loss=loss or 0.0)
                if record.validation_loss is not None:
                    progress.update(bar, validation=f"{record.validation_loss:.4f}")
