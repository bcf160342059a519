"""Samples of a trained run as videos, and a contact sheet of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidlat.config import Preprocessing, SampleConfig
from vidlat.copies.search import Match
from vidlat.encode.vae import FrozenVAE
from vidlat.encode.weights_file import hash_weights
from vidlat.errors import ConfigError, DecodeError, InputError, TrainError, one_line
from vidlat.files import require_regular_file
from vidlat.paths import local_path
from vidlat.pipeline.decode_videos import (
    decode_latents,
    load_vae_of,
    prepare_decoded_folder,
    to_gray_levels,
)
from vidlat.sample.clips import ClipSampler
from vidlat.sample.folder import Sample, continue_samples
from vidlat.sample.rejection import Drawn, copy_rejection, require_no_copies
from vidlat.sample.sampler import num_steps_for
from vidlat.train.objectives.objective import OBJECTIVES
from vidlat.train.runs.exported import load_model
from vidlat.train.runs.frozen_model import FrozenModel
from vidlat.train.runs.run_folder import TrainedRun
from vidlat.video.contact_sheet import contact_sheet
from vidlat.video.reader import lone_file, read_prepared
from vidlat.video.writer import write_array, write_gif, write_video

CONTACT_SHEET = "contact_sheet.png"
"""File name of the contact sheet of one call."""

MAX_ROWS = 32
"""Samples on a contact sheet, at most: the first ones."""


def sample_videos(
    run_dir: str | Path,
    out: str | Path,
    settings: SampleConfig,
    *,
    conditions: Sequence[Sequence[str]] | None = None,
    vae: str | None = None,
    latents: str | Path | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Path]:
    """Sample videos and yield the path of each, `out/sample-<seed>.mp4` (gif, npy), once it is written.

    What the folder holds already, drawn in the same way, is not drawn again; samples.json says how that was
    (see folder.py), and so does each mp4 and gif itself, as a comment. A contact sheet is written at the end,
    also when interrupted. Videos have the median frame rate of the training videos. The
    folder is marked, so that an encode of a folder around it passes it over. conditions: those of each
    sample, `NAME=VALUE`; by default those of the settings. vae: where the VAE of the latents is, if it has
    moved. latents: the cache of the run, to reject copies. on_progress: as for `ClipSampler.sample`, for
    samples that are drawn the first time.

    Raises TrainError for a folder without a usable run or where a sample is not finite, ConfigError for
    settings that the run was not trained for, WeightsError if its VAE cannot be found, InputError if the
    first frame cannot be read, or `out` cannot be written or holds samples that were drawn otherwise; to
    reject copies also StoreError and TrainError for a cache or a run that do not allow it, and at the end
    CopyError if samples copy training clips at every attempt, which are not written.
    """
    out, trained = local_path(out), _load(run_dir, settings)
    run = trained.run
    for condition in {tuple(each) for each in conditions or [settings.condition]}:
        check_trained_for(run, replace(settings, condition=condition))
    frozen = load_vae_of(run.schema, vae=vae, device=settings.device)
    first_frames = None
    if settings.first_frame:
        first_frames = read_first_frames(local_path(settings.first_frame), run, frozen)
    drawn = how_drawn(trained, settings)
    rejection = copy_rejection(run_dir, run, latents, settings, frozen.device)
    prepare_decoded_folder(out)
    seeds = range(settings.seed, settings.seed + settings.num)
    wanted = {
        f"sample-{seed:04d}.{settings.format}": Sample(seed=seed, condition=tuple(condition))
        for seed, condition in zip(seeds, conditions or [settings.condition] * len(seeds), strict=True)
    }
    folder = continue_samples(out, drawn, wanted)
    missing = {name: sample for name, sample in wanted.items() if not folder.holds(name)}
    sampler, to_draw = ClipSampler(trained, settings, frozen.device), list(missing.values())

    def draw(numbers: Sequence[int], attempt: int) -> Iterator[torch.Tensor]:
        return sampler.sample(
            [to_draw[number].seed for number in numbers],
            drawn["frames"],
            conditions=[to_draw[number].condition for number in numbers],
            first_frames=None if first_frames is None else first_frames.expand(len(numbers), -1, -1, -1, -1),
            attempt=attempt,
            on_progress=on_progress if attempt == 0 else lambda _: None,
        )

    numbers = range(len(to_draw))
    samples = rejection.draw(len(to_draw), draw) if rejection else map(Drawn, draw(numbers, 0))
    rows: list[tuple[str, npt.NDArray[np.uint8]]] = []
    copies: list[tuple[int, Match]] = []
    try:
        for name, sample in wanted.items():
            path = out / name
            if name in missing:
                began = time.perf_counter()
                found = next(samples)
                seconds = time.perf_counter() - began
                sample = replace(sample, seconds=seconds, num_rejected=found.num_rejected)
                if found.copied:
                    copies.append((sample.seed, found.copied))
                    continue
                _require_finite(found.latents, f"{run_dir}: sample {sample.seed}")
                frames = decode_sample(found.latents, run, frozen, drawn["frames"])
                how = drawn | {"seed": sample.seed, "condition": sample.condition}
                _write(path, frames, run.median_fps, how)
                folder.add(name, sample)
            else:
                frames = _read_again(path, run)
                on_progress(1)
            if len(rows) < MAX_ROWS:
                rows.append((", ".join([f"seed {sample.seed}", *sample.condition]), frames))
            yield path
        require_no_copies(copies)
    finally:
        if rows:
            contact_sheet(rows, out / CONTACT_SHEET)


def _load(run_dir: str | Path, settings: SampleConfig) -> TrainedRun:
    is_best = settings.checkpoint == "best"
    return load_model(run_dir, best=is_best, average_length=settings.average_length)


def how_drawn(trained: TrainedRun, settings: SampleConfig) -> dict[str, Any]:
    """What determines a sample besides its seed and its condition, as plain values."""
    run = trained.run
    first_frame = None
    if settings.first_frame:
        with local_path(settings.first_frame).open("rb") as file:
            first_frame = hashlib.file_digest(file, "sha256").hexdigest()
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


def decode_sample(
    latents: torch.Tensor, run: FrozenModel, vae: FrozenVAE, num_frames: int
) -> npt.NDArray[np.uint8]:
    """Decode whitened latents (L, t, h, w) of a run to frames (T, H, W) in 0..255, T = num_frames."""
    return to_gray_levels(decode_latents(vae, run.whitening.unwhiten(latents).numpy(), num_frames))


def read_first_frames(path: Path, run: FrozenModel, vae: FrozenVAE) -> torch.Tensor:
    """The whitened latent frames (L, K, h, w) that a run's samples of a picture or a video begin with.

    They are the first K of the last VAE calls that hold as many, of K that the run is trained with, so that a
    sample begins with the last frames of the video. Before a video that is shorter its first frame is
    repeated, and a picture is repeated too. Raises InputError if the file cannot be read.
    """
    shape, num_given = run.window_shape(), run.config.first_frames
    num_calls = 1 + (shape.covering(num_given) - shape.stack_length) // shape.timing.latent_step
    num_frames = shape.timing.frames_per_call + (num_calls - 1) * shape.timing.frame_step
    try:
        require_regular_file(path)
        frames = read_prepared(*lone_file(path), run.schema.settings)
        last = [frame.pixels for frame in deque(frames, maxlen=num_frames)]
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as the first frame: {one_line(error)}") from error
    last = [last[0]] * (num_frames - len(last)) + last
    mean, _ = vae.with_batch(1).encode(torch.from_numpy(np.stack(last))[None, None])
    return run.whitening.whiten(mean)[0, :, :num_given]


def check_trained_for(run: FrozenModel, settings: SampleConfig) -> None:
    """Raise ConfigError for settings that the run was not trained for."""
    run.conditions.parse(settings.condition)
    is_unconditional_trained = run.config.condition_dropout > 0
    if settings.guidance != 1 and not (settings.condition and is_unconditional_trained):
        raise ConfigError(
            f"guidance: got {settings.guidance:g}; it needs a --condition, and a run trained with "
            "--condition and --condition-dropout above 0"
        )
    names = {condition.name for condition in run.conditions.conditions}
    missing = names - {text.partition("=")[0] for text in settings.condition}
    if missing and not is_unconditional_trained:
        raise ConfigError(
            f"condition: {', '.join(sorted(missing))} missing; the run was trained with "
            "--condition-dropout 0 and needs all of its conditions"
        )
    if settings.first_frame and not run.config.first_frame:
        raise ConfigError("first_frame: the run was trained without --first-frame; leave it out")
    if not settings.first_frame and run.config.first_frame == 1:
        raise ConfigError(
            "first_frame: the run was trained with --first-frame 1 and needs one; give a picture"
        )
    shape, frames = run.window_shape(), run.config.frames
    begun_with = shape.covering(run.config.first_frames if run.config.first_frame else 1)
    if settings.frames > frames and begun_with >= shape.num_latent_frames:
        raise ConfigError(
            f"frames: got {settings.frames}; the run was trained on clips of {frames} frames, too short to "
            f"continue, and cannot sample longer ones; expected {frames} at most, or a run trained with "
            f"--frames {frames + shape.timing.frame_step}"
        )


def _require_finite(latents: torch.Tensor, name: str) -> None:
    if not torch.isfinite(latents).all():
        raise TrainError(
            f"{name} holds numbers that are not finite; try --checkpoint best, or less --guidance"
        )


def _write(path: Path, frames: npt.NDArray[np.uint8], fps: float, drawn: dict[str, Any]) -> None:
    match path.suffix:
        case ".npy":
            write_array(path, frames)
        case ".gif":
            write_gif(path, frames, fps, comment=json.dumps(drawn))
        case _:
            write_video(path, frames, fps, comment=json.dumps(drawn))


def _read_again(path: Path, run: FrozenModel) -> npt.NDArray[np.uint8]:
    """The frames (T, H, W) of a sample as it was written; raises InputError."""
    how = Preprocessing(size=run.schema.settings.size, intensity="uint8")
    try:
        return to_gray_levels(np.stack([frame.pixels for frame in read_prepared(*lone_file(path), how)]))
    except (DecodeError, OSError) as error:
        reason = one_line(error)
        raise InputError(f"{path}: cannot be read: {reason}; remove it to have it drawn again") from error
