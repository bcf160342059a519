"""`vidlat fit-vae`: shows the progress of reading and fitting, and ends it in order when interrupted."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

from vidlat.commands.display import console, format_count, progress_bar
from vidlat.config import FitVAEConfig
from vidlat.evaluate.quality import psnr_of
from vidlat.fit import fitting
from vidlat.fit.run import FitStep
from vidlat.fit.unfinished import UnfinishedFit
from vidlat.interrupts import stopping


def fit_vae(inputs: tuple[str, ...], out: Path, resume: bool, settings: dict[str, Any]) -> None:
    """Read the videos, fit the VAE and write it."""
    base = UnfinishedFit(out).read_settings().to_dict() if resume else {}
    config = FitVAEConfig.from_mapping(base | settings)
    events = fitting.fit_vae(inputs, out, config, resume=resume)
    stop, step = Event(), 0
    with progress_bar("{task.fields[note]}") as progress, stopping(stop.set):
        reading = progress.add_task("reading", total=None, note="")
        training = progress.add_task("fitting", total=config.steps, note="", visible=False)
        for event in events:
            if isinstance(event, FitStep):
                step = event.step
                note = f"PSNR {psnr_of(event.mse):.2f} dB"
                progress.update(training, completed=step, note=note, visible=True)
            else:
                progress.update(reading, completed=event.number, total=event.num_sources)
                _describe(event, config)
            if stop.is_set() and step < config.steps:
                events.close()
                last = UnfinishedFit(out).last_step()  # a GPU is ahead of the steps that it reports
                if step and last is None:
                    break  # it had finished
                saved = f"stopped and saved after step {last}; the same command with --resume continues"
                console.print(saved if step else "stopped before the first step")
                raise KeyboardInterrupt
    console.print(f"weights -> {out}")


def _describe(event: fitting.VideoRead, config: FitVAEConfig) -> None:
    if event.failure:
        console.print(f"{event.video_id}: {event.failure}; left out")
    if event.number == event.num_sources:
        count = f"{format_count(event.num_stacks, 'stack')} of {format_count(config.stack, 'frame')}"
        console.print(f"{count} from {format_count(event.num_videos, 'video')}")
