"""Samples of a trained run as videos, and a contact sheet of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vidlat.config import SampleConfig
from vidlat.encode.vae import FrozenVAE
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
from vidlat.train.frozen_run import Run
from vidlat.train.run_folder import load_run
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
    vae: str | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Path]:
    """Sample videos and yield the path of each, `out/sample-<seed>.mp4` (gif, npy), once it is written.

    A contact sheet is written at the end, or of the videos so far when interrupted. Videos have the median
    frame rate of the training videos. The folder is marked, so that an encode of a folder around it passes it
    over. vae: where the VAE of the latents is, if it has moved. on_progress: as
    for `ClipSampler.sample`.

    Raises TrainError for a folder without a usable run or where a sample is not finite, ConfigError for
    settings that the run was not trained for, WeightsError if its VAE cannot be found, InputError if the
    first frame cannot be read or `out` cannot be written.
    """
    out = local_path(out)
    trained = load_run(local_path(run_dir), best=settings.checkpoint == "best")
    run = trained.run
    check_trained_for(run, settings)
    frozen = load_vae_of(run.schema, vae=vae, device=settings.device)
    prepare_decoded_folder(out)
    first_frames = None
    if settings.first_frame:
        first_frames = read_first_frame(local_path(settings.first_frame), run, frozen).expand(
            settings.num, -1, -1, -1
        )
    seeds, num_frames = (
        range(settings.seed, settings.seed + settings.num),
        settings.frames or run.config.frames,
    )
    samples = ClipSampler(trained, settings, frozen.device).sample(
        seeds, num_frames, first_frames=first_frames, on_progress=on_progress
    )
    rows: list[tuple[str, npt.NDArray[np.uint8]]] = []
    try:
        for seed, latents in zip(seeds, samples, strict=True):
            if not torch.isfinite(latents).all():
                raise TrainError(
                    f"{run_dir}: sample {seed} holds numbers that are not finite; try --checkpoint best, or "
                    "less --guidance"
                )
            frames = decode_sample(latents, run, frozen, num_frames)
            path = out / f"sample-{seed:04d}.{settings.format}"
            _write(path, frames, run.median_fps)
            if len(rows) < MAX_ROWS:
                rows.append((f"seed {seed}", frames))
            yield path
    except (KeyboardInterrupt, GeneratorExit):
        if rows:
            contact_sheet(rows, out / CONTACT_SHEET)
        raise
    contact_sheet(rows, out / CONTACT_SHEET)


def decode_sample(latents: torch.Tensor, run: Run, vae: FrozenVAE, num_frames: int) -> npt.NDArray[np.uint8]:
    """Decode whitened latents (L, t, h, w) of a run to frames (T, H, W) in 0..255, T = num_frames."""
    return to_gray_levels(decode_latents(vae, run.whitening.unwhiten(latents).numpy(), num_frames))


def read_first_frame(path: Path, run: Run, vae: FrozenVAE) -> torch.Tensor:
    """The whitened latent frame (L, h, w) of a picture, or of the last frames of a video.

    Raises InputError if the file cannot be read.
    """
    try:
        require_regular_file(path)
        frames = read_prepared(*lone_file(path), run.schema.settings)
        last = [frame.pixels for frame in deque(frames, maxlen=vae.timing.frames_per_call)]
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as the first frame: {one_line(error)}") from error
    last = [last[0]] * (vae.timing.frames_per_call - len(last)) + last
    mean, _ = vae.with_batch(1).encode(torch.from_numpy(np.stack(last))[None, None])
    return run.whitening.whiten(mean)[0, :, -1]


def check_trained_for(run: Run, settings: SampleConfig) -> None:
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
    timing, frames = run.schema.timing, run.config.frames
    if settings.frames > frames <= timing.frames_per_call:
        raise ConfigError(
            f"frames: got {settings.frames}; the run was trained on clips of {frames} frames, a single "
            f"stack, and cannot sample longer ones; expected {frames} at most, or a run trained with "
            f"--frames {frames + timing.frame_step}"
        )


def _write(path: Path, frames: npt.NDArray[np.uint8], fps: float) -> None:
    match path.suffix:
        case ".npy":
            write_array(path, frames)
        case ".gif":
            write_gif(path, frames, fps)
        case _:
            write_video(path, frames, fps)
