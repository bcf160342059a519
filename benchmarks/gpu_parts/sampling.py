"""Samples a second: latents of 16 frames, in 50 steps of the default sampler, without the VAE.

Guidance needs a prediction with the condition and one without.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from gpu_parts.measuring import Row, Setting, peak_memory_gb, reset_peak_memory, seconds_per_call
from gpu_parts.training import make_cache, make_trainer

from vidlat.config import SampleConfig
from vidlat.sample.clips import ClipSampler
from vidlat.train.runs.run_folder import TrainedRun

FRAMES = 16


def measure(setting: Setting) -> Iterator[Row]:
    sides, presets, batches, steps = (32, 64), ("tiny", "base"), (8, 32), 50
    if setting.quick:
        sides, presets, batches, steps = (8,), ("tiny",), (2,), 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in sides:
            cache = make_cache(folder, side, classes=("a4c", "plax"))
            for preset in presets:
                trainer = make_trainer(cache, folder, setting, preset=preset, condition=("view",))
                trained = TrainedRun(run=trainer.run, model=trainer.state.ema, step=0)
                trainer.close()
                for batch in batches:
                    for guidance in (1.0, 2.0):
                        settings = SampleConfig(
                            num=batch, batch=batch, steps=steps, guidance=guidance, condition=("view=a4c",)
                        )
                        yield {
                            "preset": preset,
                            "latents": side,
                            "batch": batch,
                            "guidance": guidance,
                            **time_sampler(trained, settings, setting),
                        }


def time_sampler(trained: TrainedRun, settings: SampleConfig, setting: Setting) -> Row:
    sampler = ClipSampler(trained, settings, torch.device(setting.device))
    reset_peak_memory(setting)
    seconds = seconds_per_call(lambda: list(sampler.sample(range(settings.num), FRAMES)), setting)
    return {"samples/s": settings.num / seconds, "peak GB": peak_memory_gb(setting)}
