"""Samples of a trained run as videos, and a contact sheet of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vidlat.config import Preprocessing, SampleConfig
from vidlat.copies.search import Match
from vidlat.encode.vae import FrozenVAE
from vidlat.errors import ConfigError, DecodeError, InputError, TrainError, one_line
from vidlat.paths import local_path
from vidlat.pipeline.decode_videos import (
    decode_latents,
    load_vae_of,
    prepare_decoded_folder,
    to_gray_levels,
)
from vidlat.sample.clips import ClipSampler
from vidlat.sample.description import describe, title_of
from vidlat.sample.first_frames import read_first_frames
from vidlat.sample.folder import Sample, continue_samples
from vidlat.sample.pictures import Picture, Sheet, SweepGrid, in_sweep_order
from vidlat.sample.rejection import Drawn, copy_rejection, require_no_copies
from vidlat.sample.trained_for import beyond_training
from vidlat.sample.wanted import wanted_samples
from vidlat.train.runs.exported import load_model
from vidlat.train.runs.frozen_model import FrozenModel
from vidlat.train.runs.run_folder import TrainedRun
from vidlat.train.threads import fastest, in_words
from vidlat.video.reader import lone_file, read_prepared
from vidlat.video.writer import write_array, write_gif, write_video

Frames = npt.NDArray[np.uint8]


def sample_videos(
    run_dir: str | Path,
    out: str | Path,
    settings: SampleConfig,
    *,
    conditions: Sequence[Sequence[str]] | None = None,
    vae: str | None = None,
    latents: str | Path | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
    show_notice: Callable[[str], None] | None = None,
) -> Iterator[Path]:
    """Sample videos and yield the path of each, `out/sample-<seed>.mp4` (gif, npy), once it is written.

    First come those that are there already; samples that are drawn again come after others. What the folder
    holds already, drawn in the same way, is not drawn again; samples.jsonl says how that was (see folder.py),
    and so does each mp4 and gif itself, as a comment. A contact sheet is written at the end, also when
    interrupted; of a sweep, whose files are `sample-<name>=<value>-<seed>.mp4`, also a grid in `out/sweep`;
    both show what the folder holds of the sweep already, too.
    Videos have the median frame rate of the training videos. The folder is marked, so that an
    encode of a folder around it passes it over.

    conditions: those of each sample, `NAME=VALUE`, where nothing is swept; by default those of the settings.
    vae: where the VAE of the latents is, if it has moved. latents: the cache of the run, to reject copies.
    on_progress: as for `ClipSampler.sample`, for samples that are drawn the first time, and with 0 when
    drawing begins. show_notice: receives lines about a condition of the settings beyond what was trained and
    the number of threads, and as for `load_vae_of`; by default they go to stderr. On a CPU, torch may have
    another number of threads afterwards.

    Raises TrainError for a folder without a usable run or where a sample is not finite, ConfigError for
    settings that the run was not trained for, WeightsError if its VAE cannot be found, InputError if the
    first frame cannot be read, or `out` cannot be written or holds samples that were drawn otherwise; to
    reject copies also StoreError and TrainError for a cache or a run that do not allow it, and at the end
    CopyError if samples copy training clips at every attempt, which are not written.
    """
    settings.require_effect()
    out, drawing = local_path(out), _Drawing(run_dir, settings, conditions, vae, show_notice)
    rejection = copy_rejection(run_dir, drawing.run, latents, settings, drawing.device)
    prepare_decoded_folder(out)
    wanted = drawing.wanted
    folder = continue_samples(out, drawing.description, wanted)
    missing = [(name, sample) for name, sample in wanted.items() if not folder.holds(name)]
    draw = partial(drawing.draw, [sample for _, sample in missing], on_progress)
    everything = range(len(missing))
    drawing.choose_threads(len(missing))
    on_progress(0)  # what loading and trying took tells nothing of what drawing will take
    drawn = rejection.draw(len(missing), draw) if rejection else enumerate(map(Drawn, draw(everything, 0)))
    shown = in_sweep_order(wanted, folder.held(), settings.swept[0]) if settings.sweep else wanted
    pictures = _pictures(shown, drawing, settings)
    copies: list[tuple[int, Match]] = []
    try:
        for name in shown.keys() - wanted.keys():
            if any(picture.shows(name) for picture in pictures):
                _add(pictures, name, _read_again(out / name, drawing.run))
        for name in wanted:
            if folder.holds(name):
                _add(pictures, name, _read_again(out / name, drawing.run))
                on_progress(1)
                yield out / name
        for (number, each), seconds in _timed(drawn):
            name, sample = missing[number]
            if each.copied:
                copies.append((sample.seed, each.copied))
                continue
            sample = replace(sample, seconds=seconds, num_rejected=each.num_rejected)
            _add(pictures, name, drawing.write(out / name, each.latents, sample))
            folder.add(name, sample)
            yield out / name
        require_no_copies(copies)
    finally:
        for picture in pictures:
            picture.write(out)


def sample_frames(
    run_dir: str | Path,
    settings: SampleConfig,
    *,
    conditions: Sequence[Sequence[str]] | None = None,
    vae: str | None = None,
    show_notice: Callable[[str], None] | None = None,
) -> Iterator[Frames]:
    """Draw the samples of `sample_videos` in memory: yield the frames (T, H, W) uint8 of each, seed by seed.

    run_dir: a run, an exported model or its address on a hub. conditions, vae, show_notice: as for
    `sample_videos`, and it raises as that does; also ConfigError for `reject_copies`, which needs its files.
    """
    settings.require_effect()
    if settings.reject_copies:
        raise ConfigError("reject_copies: samples in memory are not compared with clips; use sample_videos")
    drawing = _Drawing(run_dir, settings, conditions, vae, show_notice)
    samples = list(drawing.wanted.values())
    drawing.choose_threads(len(samples))
    drawn = drawing.draw(samples, lambda _: None, range(len(samples)), 0)
    for sample, latents in zip(samples, drawn, strict=True):
        yield drawing.decode(latents, sample)


def _pictures(samples: Mapping[str, Sample], drawing: _Drawing, settings: SampleConfig) -> list[Picture]:
    """The empty pictures of samples by file name, of a sweep in its order."""
    run = drawing.run
    sheet = Sheet(samples, title_of(drawing.description), run.schema.timing.frame_step)
    return [sheet, SweepGrid(samples, settings.swept[0], run.median_fps)] if settings.sweep else [sheet]


def _add(pictures: Sequence[Picture], name: str, frames: Frames) -> None:
    for picture in pictures:
        picture.add(name, frames)


class _Drawing:
    """A run, its VAE and settings, ready to draw samples; raises as `sample_videos` where they do not fit.

    wanted: samples by file name. description: what they have in common, see `describe`.
    """

    def __init__(
        self,
        run_dir: str | Path,
        settings: SampleConfig,
        conditions: Sequence[Sequence[str]] | None,
        vae: str | None,
        show_notice: Callable[[str], None] | None,
    ) -> None:
        trained = _load(run_dir, settings)
        self.run = trained.run
        self.wanted = wanted_samples(self.run, settings, conditions)
        self._tell = show_notice or partial(print, file=sys.stderr)
        if conditions is None:
            for line in beyond_training(self.run, self.wanted.values()):
                self._tell(line)
        self._vae = load_vae_of(self.run.schema, vae=vae, device=settings.device, show_notice=show_notice)
        self.device = self._vae.device
        self._first_frames = None
        if settings.first_frame:
            path = local_path(settings.first_frame)
            self._first_frames = read_first_frames(path, self.run, self._vae)
        self.description = describe(
            run_dir, trained, settings,
            vae_name=vae or self.run.schema.vae_name,
            vae_hash=self._vae.weights_hash,
            condition=None if conditions else self.run.conditions.canonical(settings.condition),
        )  # fmt: skip
        self._num_frames = settings.frames or self.run.config.frames
        self._sampler = ClipSampler(trained, settings, self.device)

    def choose_threads(self, num_samples: int) -> None:
        """Try how many threads are fastest before many samples, and tell where fewer than all cores are."""
        tried = self._sampler.choose_threads(num_samples)
        if tried and fastest(tried) < max(tried):
            self._tell(f"{in_words(tried)}; computing with {fastest(tried)} (OMP_NUM_THREADS overrules it)")

    def draw(
        self,
        samples: Sequence[Sample],
        on_progress: Callable[[float], None],
        numbers: Sequence[int],
        attempt: int,
    ) -> Iterator[torch.Tensor]:
        """Yield the whitened latents of some samples, by their numbers; only a first attempt is progress."""
        first_frames = self._first_frames
        return self._sampler.sample(
            [samples[number].seed for number in numbers],
            self._num_frames,
            conditions=[samples[number].condition for number in numbers],
            first_frames=None if first_frames is None else first_frames.expand(len(numbers), -1, -1, -1, -1),
            attempt=attempt,
            on_progress=on_progress if attempt == 0 else lambda _: None,
        )

    def decode(self, latents: torch.Tensor, sample: Sample) -> Frames:
        """The frames (T, H, W) of a sample; raises TrainError where its latents are not finite."""
        if not torch.isfinite(latents).all():
            raise TrainError(
                f"sample {sample.seed} holds numbers that are not finite; try --checkpoint best, or less "
                "--guidance"
            )
        return decode_sample(latents, self.run, self._vae, self._num_frames)

    def write(self, path: Path, latents: torch.Tensor, sample: Sample) -> Frames:
        """Write a sample as a video that tells how it was drawn, and return its frames."""
        frames = self.decode(latents, sample)
        own = {"seed": sample.seed, "condition": sample.condition}
        comment = json.dumps(self.description | {"drawn": self.description["drawn"] | own})
        match path.suffix:
            case ".npy":
                write_array(path, frames)
            case ".gif":
                write_gif(path, frames, self.run.median_fps, comment)
            case _:
                write_video(path, frames, self.run.median_fps, comment=comment)
        return frames


def _timed(drawn: Iterator[tuple[int, Drawn]]) -> Iterator[tuple[tuple[int, Drawn], float]]:
    """Each with the seconds that it took."""
    began = time.perf_counter()
    for each in drawn:
        yield each, time.perf_counter() - began
        began = time.perf_counter()


def _load(run_dir: str | Path, settings: SampleConfig) -> TrainedRun:
    is_best = settings.checkpoint == "best"
    return load_model(run_dir, best=is_best, average_length=settings.average_length)


def decode_sample(latents: torch.Tensor, run: FrozenModel, vae: FrozenVAE, num_frames: int) -> Frames:
    """Decode whitened latents (L, t, h, w) of a run to frames (T, H, W) in 0..255, T = num_frames."""
    return to_gray_levels(decode_latents(vae, run.whitening.unwhiten(latents).numpy(), num_frames))


def _read_again(path: Path, run: FrozenModel) -> Frames:
    """The frames (T, H, W) of a sample as it was written; raises InputError."""
    how = Preprocessing(size=run.schema.settings.size, intensity="uint8")
    try:
        return to_gray_levels(np.stack([frame.pixels for frame in read_prepared(*lone_file(path), how)]))
    except (DecodeError, OSError) as error:
        reason = one_line(error)
        raise InputError(f"{path}: cannot be read: {reason}; remove it to have it drawn again") from error
