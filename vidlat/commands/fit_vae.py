"""`vidlat fit-vae`: shows the progress of reading and fitting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidlat.commands.display import console, format_count, progress_bar
from vidlat.config import FitVAEConfig
from vidlat.evaluate.quality import psnr_of
from vidlat.fit import fitting


def fit_vae(inputs: tuple[str, ...], out: Path, settings: dict[str, Any]) -> None:
    """Read the videos, fit the VAE and write it."""
    config = FitVAEConfig.from_mapping(settings)
    events = fitting.fit_vae(inputs, out, config)
    with progress_bar("{task.fields[note]}") as progress:
        reading = progress.add_task("reading", total=None, note="")
        training = progress.add_task("fitting", total=config.steps, note="", visible=False)
        for event in events:
            if isinstance(event, fitting.FitStep):
                note = f"PSNR {psnr_of(event.mse):.2f} dB"
                progress.update(training, completed=event.step, note=note, visible=True)
                continue
            progress.update(reading, completed=event.number, total=event.num_sources)
            if event.failure:
                console.print(f"{event.video_id}: {event.failure}; left out")
            if event.number == event.num_sources:
                count = f"{format_count(event.num_stacks, 'stack')} of {format_count(config.stack, 'frame')}"
                console.print(f"{count} from {format_count(event.num_videos, 'video')}")
    console.print(f"weights -> {out}")
