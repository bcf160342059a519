"""`vidlat evaluate`: what a VAE keeps of videos, or how good samples are, as the flags say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidlat.config import EvaluateConfig
from vidlat.errors import ConfigError, ExitCode

DRAWING = ("steps", "sampler", "guidance", "guidance_interval", "checkpoint", "average_length")
"""Settings of samples that are yet to be drawn."""


def evaluate(
    latents: str | Path,
    inputs: tuple[str, ...],
    max_videos: int | None,
    run_dir: Path | None,
    samples: Path | None,
    out: Path | None,
    json_file: Path | None,
    vae: str | None,
    settings: dict[str, Any],
) -> ExitCode:
    """Measure what the VAE keeps of videos, or how good samples are, as the flags say."""
    of_samples = {"run": run_dir, "samples": samples, "out": out, **settings}
    of_samples.pop("device", None)
    if inputs:
        _refuse_others("--input compares latents with their sources", of_samples, "measures samples")
        device = settings.get("device", "auto")
        from vidlat.commands.evaluate_videos import evaluate_reconstructions  # loads torch

        return evaluate_reconstructions(latents, inputs, max_videos, json_file, vae, device)
    if not run_dir and not samples:
        raise ConfigError(
            "what is to be evaluated? --input VIDEOS for what the VAE keeps of them, --run RUN or --samples "
            "FOLDER for samples"
        )
    measures = "--run and --samples measure samples"
    _refuse_others(measures, {"max_videos": max_videos}, "compares latents with sources")
    if samples:
        of_drawing = {name: settings.get(name) for name in DRAWING}
        _refuse_others("--samples measures videos that are there", of_drawing, "says how to draw them")
    config = EvaluateConfig.from_mapping(settings)
    if out is None:
        if samples or not run_dir:
            raise ConfigError("--out is missing: with --samples, give a folder for figures and pictures")
        out = run_dir / ("evaluation-test" if config.held_out == "test" else "evaluation")
    from vidlat.commands.evaluate_samples import evaluate_sampled  # loads torch

    json_file = json_file or out / "evaluation.json"
    return evaluate_sampled(latents, run_dir, samples, out, json_file, vae, config)


def _refuse_others(used: str, others: dict[str, Any], what: str) -> None:
    """Raise ConfigError for a flag of the other use of the command."""
    for name, value in others.items():
        if value is not None:
            raise ConfigError(f"{used}, and --{name.replace('_', '-')} {what}; leave one of the two out")
