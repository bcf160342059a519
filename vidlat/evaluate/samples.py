"""Samples of a trained run as videos and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidlat.evaluate.contact_sheet import contact_sheet
from vidlat.pipeline.decode import decode_latents, load_vae_of, to_gray_levels
from vidlat.train.run import load_run
from vidlat.train.sampler import sample_latents
from vidlat.video.writer import prepare_folder, write_video


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSamples:
    """The files that came of a run's samples, and the length of each video."""

    videos: list[Path]
    contact_sheet: Path
    num_frames: int


def write_samples(
    run_dir: Path,
    out: Path,
    *,
    seeds: Sequence[int],
    num_steps: int,
    vae: str | None = None,
    device: str = "auto",
    on_step: Callable[[int], None] | None = None,
) -> WrittenSamples:
    """Draw one sample a seed, decode them, and write `sample-<seed>.mp4` and `contact_sheet.png`.

    The videos are as long as the training clips and play at their median rate.
    Raises TrainError for a folder without a usable run, WeightsError where its VAE cannot be found,
    InputError where `out` cannot be written.
    """
    trained = load_run(run_dir)
    run = trained.run
    frozen = load_vae_of(run.schema, vae=vae, device=device)
    prepare_folder(out)
    latents = sample_latents(
        trained.model.to(frozen.device),
        objective=run.config.objective,
        whitening=run.whitening,
        shape=run.latent_shape(),
        seeds=seeds,
        num_steps=num_steps,
        device=frozen.device,
        on_step=on_step,
    )
    videos, rows = [], []
    for seed, sample in zip(seeds, latents.numpy(), strict=True):
        frames = to_gray_levels(decode_latents(frozen, sample, run.config.frames))
        videos.append(out / f"sample-{seed:04d}.mp4")
        write_video(videos[-1], frames, run.median_fps)
        rows.append((f"seed {seed}", frames))
    sheet = out / "contact_sheet.png"
    contact_sheet(rows, sheet)
    return WrittenSamples(videos=videos, contact_sheet=sheet, num_frames=run.config.frames)
