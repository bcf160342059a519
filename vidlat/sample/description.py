"""What the samples of a folder have in common: their run, its weights, and how they are drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vidlat
from vidlat.config import SampleConfig
from vidlat.encode.hub import sha256_of
from vidlat.encode.vae_spec import name_without_path
from vidlat.encode.weights_file import hash_weights
from vidlat.paths import local_path
from vidlat.sample.sampler import num_steps_for
from vidlat.train.objectives.objective import OBJECTIVES
from vidlat.train.runs.exported import HUB
from vidlat.train.runs.run_folder import TrainedRun
from vidlat.wording import format_count


def describe(
    run_dir: str | Path,
    trained: TrainedRun,
    settings: SampleConfig,
    *,
    vae_name: str,
    vae_hash: str,
    condition: Sequence[str] | None,
) -> dict[str, Any]:
    """The description of a folder of samples, as plain values: the first line of its samples.jsonl.

    `drawn` is what determines a sample besides its seed and its own condition. vae_name, vae_hash: of the
    decoder. condition: of all samples, but for the one that is swept; None where each has its own.
    """
    is_on_hub = str(run_dir).startswith(HUB)
    return {
        "vidlat_version": vidlat.__version__,
        "run": str(run_dir) if is_on_hub else local_path(run_dir).resolve().name,
        "checkpoint": settings.checkpoint,
        "average_length": settings.average_length,
        "vae": name_without_path(vae_name),
        "drawn": {
            **_how_drawn(trained, settings),
            "vae_hash": vae_hash,
            "condition": None if condition is None else list(condition),
            "sweep": settings.swept[0] or None,
        },
    }


def _how_drawn(trained: TrainedRun, settings: SampleConfig) -> dict[str, Any]:
    run = trained.run
    first_frame = sha256_of(local_path(settings.first_frame)) if settings.first_frame else None
    rejected = {"reject_copies": settings.reject_copies} if settings.reject_copies else {}
    return rejected | {
        "cache_id": run.schema.cache_id,
        "weights_hash": hash_weights(trained.model.state_dict()),
        "step": trained.step,
        "frames": settings.frames or run.config.frames,
        "steps": num_steps_for(OBJECTIVES[run.config.objective], settings.steps),
        "sampler": settings.sampler,
        "guidance": settings.guidance,
        "guidance_interval": list(settings.guidance_interval),
        "first_frame": first_frame,
        "precision": settings.precision,
        "format": settings.format,
    }


def title_of(description: Mapping[str, Any]) -> str:
    """One line about samples, for a picture of them."""
    drawn = description["drawn"]
    num_steps = format_count(drawn["steps"], "step")
    facts = [f"run {description['run']}", f"step {drawn['step']:,}", f"{num_steps} of {drawn['sampler']}"]
    if drawn["guidance"] != 1:
        facts.append(f"guidance {drawn['guidance']:g}")
    return ", ".join(facts)
