"""Samples of a trained run as videos and a contact sheet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vidlat.config import SampleConfig
from vidlat.encode.vae import FrozenVAE
from vidlat.errors import ConfigError, DecodeError, InputError
from vidlat.evaluate.drawing import batch_of, draw
from vidlat.pipeline.decode_videos import decode_latents, load_vae_of, to_gray_levels
from vidlat.train.run import Run, load_run
from vidlat.video.contact_sheet import contact_sheet
from vidlat.video.reader import lone_file, read_prepared
from vidlat.video.writer import prepare_folder, write_array, write_gif, write_video

CONTACT_SHEET = "contact_sheet.png"
"""Of the samples of one call, MOST_ROWS of them at most."""

MOST_ROWS = 32


def write_samples(
    run_dir: Path,
    out: Path,
    config: SampleConfig,
    *,
    vae: str | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Path]:
    """Draw samples, decode and write each as `sample-<seed>.mp4` (gif, npy), then a CONTACT_SHEET of them.

    Yields each video when it is written; where it ends early, the sheet shows those that there are. Videos
    play at the median rate of the training videos. on_progress: as for `draw`. Raises TrainError for a folder
    without a usable run, ConfigError for what the run was not trained for, WeightsError where its VAE cannot
    be found, InputError for a start that cannot be read, or where `out` cannot be written.
    """
    trained = load_run(run_dir, best=config.checkpoint == "best")
    run = trained.run
    require_possible(run, config)
    frozen = load_vae_of(run.schema, vae=vae, device=config.device)
    prepare_folder(out)
    num_frames = config.frames or run.config.frames
    given = read_start(Path(config.first_frame), run, frozen) if config.first_frame else None
    rows: list[tuple[str, npt.NDArray[np.uint8]]] = []
    try:
        size = batch_of(config, frozen)
        for first in range(config.seed, config.seed + config.num, size):
            seeds = range(first, min(first + size, config.seed + config.num))
            start = None if given is None else given.expand(len(seeds), -1, -1, -1)
            latents = draw(trained, frozen, config, seeds, num_frames, start, on_progress)
            for seed, sample in zip(seeds, latents.numpy(), strict=True):
                frames = to_gray_levels(decode_latents(frozen, sample, num_frames))
                path = out / f"sample-{seed:04d}.{config.format}"
                _write(path, frames, run.median_fps)
                if len(rows) < MOST_ROWS:
                    rows.append((f"seed {seed}", frames))
                yield path
    except (KeyboardInterrupt, GeneratorExit):
        if rows:
            contact_sheet(rows, out / CONTACT_SHEET)
        raise
    contact_sheet(rows, out / CONTACT_SHEET)


def read_start(path: Path, run: Run, vae: FrozenVAE) -> torch.Tensor:
    """The latent frame to go on from, whitened (L, h, w): a picture's, or that of a video's last frames.

    Raises InputError where it cannot be read.
    """
    try:
        frames = read_prepared(*lone_file(path), run.schema.settings.preprocessing)
        last = [frame.pixels for frame in deque(frames, maxlen=vae.stack)]
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be started from: {error}") from error
    last = [last[0]] * (vae.stack - len(last)) + last
    mean, _ = vae.encode(torch.from_numpy(np.stack(last))[None, None])
    return run.whitening.whiten(mean)[0, :, -1]


def require_possible(run: Run, config: SampleConfig) -> None:
    """Refuse what the run was not trained for, before anything is loaded; raises ConfigError."""
    run.conditions.parse(config.condition)
    knows_free_answer = run.config.condition_dropout > 0
    if config.guidance != 1 and not (config.condition and knows_free_answer):
        raise ConfigError(
            "guidance: leads from the answer without a condition to that with one; give a --condition, and "
            "train with --condition and --condition-dropout above 0"
        )
    names = {condition.name for condition in run.conditions.conditions}
    missing = names - {asked.partition("=")[0] for asked in config.condition}
    if missing and not knows_free_answer:
        raise ConfigError(
            "condition: the run has --condition-dropout 0 and knows no answer without "
            f"{', '.join(sorted(missing))}; give all of them"
        )
    if config.first_frame and not run.config.first_frame:
        raise ConfigError(
            "first_frame: the run cannot continue a picture; it was trained without --first-frame"
        )
    if not config.first_frame and run.config.first_frame == 1:
        raise ConfigError(
            "first_frame: the run was trained with --first-frame 1 and always needs a first frame; give one"
        )
    stack, frames = run.schema.settings.stack, run.config.frames
    if config.frames > frames <= stack:
        raise ConfigError(
            f"frames: got {config.frames}; windows of this run ({frames} frames) have nothing to overlap "
            f"by; expected {frames} at most"
        )


def _write(path: Path, frames: npt.NDArray[np.uint8], fps: float) -> None:
    match path.suffix:
        case ".npy":
            write_array(path, frames)
        case ".gif":
            write_gif(path, frames, fps)
        case _:
            write_video(path, frames, fps)
