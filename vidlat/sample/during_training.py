"""Training with samples on the way: in TensorBoard, and as files in the run's folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from vidlat.config import SampleConfig, TrainConfig
from vidlat.encode.memory import release_freed_memory
from vidlat.errors import NotEnoughMemoryError, is_out_of_memory, one_line
from vidlat.labels.reading import read_labels
from vidlat.paths import local_path
from vidlat.pipeline.decode_videos import load_vae_of, prepare_decoded_folder
from vidlat.sample.clips import ClipSampler
from vidlat.sample.videos import decode_sample
from vidlat.store.reader import LatentCache, open_cache
from vidlat.train.event_files import show_picture
from vidlat.train.recorder import StepRecord
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.run_folder import TrainedRun
from vidlat.train.trainer import Trainer
from vidlat.video.contact_sheet import Row, contact_sheet
from vidlat.video.display_window import window_of_all
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import write_gif

NUM_SAMPLES, NUM_STEPS = 4, 25


class SamplingStoppedError(Exception):
    """Samples that are left out, because the training is to stop."""


def train_unet(
    latents: str | Path,
    out: str | Path,
    settings: TrainConfig,
    *,
    resume: bool = False,
    labels: str | Path | None = None,
    vae: str | None = None,
    show_notice: Callable[[str], None] | None = None,
) -> Iterator[StepRecord]:
    """Train a diffusion U-Net on the cache `latents` into the run folder `out`, yielding a record per step.

    resume: continue the run in `out`, with the settings it was started with. labels: a table by video id,
    whose labels take precedence over those in the cache. vae, show_notice: as for `steps_with_samples`.
    Raises StoreError if `latents` is not a cache, InputError for a wrong table, and TrainError as `Trainer`.
    """
    annotations = read_labels(local_path(labels)) if labels else {}
    trainer = Trainer(settings, open_cache(latents), local_path(out), resume=resume, labels=annotations)
    return steps_with_samples(trainer, vae=vae, show_notice=show_notice)


def steps_with_samples(
    trainer: Trainer, *, vae: str | None = None, show_notice: Callable[[str], None] | None = None
) -> Iterator[StepRecord]:
    """Train, and write samples every `sample_every` steps of the settings; 0 writes none.

    Samples for which memory does not suffice are left out, and the training goes on; so are those during
    which it is to stop, which it does after one more step. vae: where the VAE of
    the latents is, if it has moved. show_notice: receives a line about such things; by default it goes to
    stderr. Raises as `Trainer.steps` and `TrainingSamples` do.
    """
    every = trainer.settings.sample_every
    if not every or not trainer.ranks.is_first:
        yield from trainer.steps()
        return
    show_notice = show_notice or partial(print, file=sys.stderr)
    with closing(
        TrainingSamples(
            trainer.run, trainer.cache, trainer.run_dir,
            device=str(trainer.device), vae=vae, show_notice=show_notice,
            should_stop=lambda: trainer.is_stopping,
        )
    ) as samples:  # fmt: skip
        for record in trainer.steps():
            if record.step % every == 0 and (reason := _obstacle(samples, trainer)):
                show_notice(f"no samples of step {record.step}, {reason}")
            yield record


def _obstacle(samples: TrainingSamples, trainer: Trainer) -> str | None:
    """Write samples of the present weights; where they are left out, why."""
    try:
        samples.write(trainer.state.ema, trainer.state.step)
    except SamplingStoppedError:
        return "the training stops"
    except (NotEnoughMemoryError, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = f"the training goes on: {one_line(error)}"
    else:
        return None
    release_freed_memory(trainer.device)  # outside the handler, which keeps what the error had in use
    return reason


class TrainingSamples:
    """Samples of the averaged weights with the same seeds each time, so that they can be compared.

    Each has the conditions of a training video, and its first frame if the run always has one. They go to
    `samples/step_<step>.gif`, side by side under their captions, and `.png`, a contact sheet; both also into
    TensorBoard.

    device: that of the network. show_notice: as for `load_vae_of`. should_stop: whether to leave samples out,
    asked at every denoising step and before each sample is decoded. Raises WeightsError if the VAE of the
    latents cannot be found, NotEnoughMemoryError if it has no room on the device, InputError if the folder
    cannot be written.
    """

    def __init__(
        self,
        run: Run,
        cache: LatentCache,
        run_dir: Path,
        *,
        device: str,
        vae: str | None = None,
        show_notice: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.run, self.folder, self._should_stop = run, run_dir / "samples", should_stop
        self._vae = load_vae_of(run.schema, vae=vae, device=device, show_notice=show_notice)
        labelled = [video_id for video_id in run.training if run.labels[video_id]] or list(run.training)
        # Spread over the names, of which those of one patient or class are often neighbours.
        self._examples = [labelled[index * len(labelled) // NUM_SAMPLES] for index in range(NUM_SAMPLES)]
        records = cache.records()
        examples = [records[video_id] for video_id in self._examples]
        starts, num_given = np.array([record.start for record in examples]), run.config.first_frames
        first, _ = cache.read_windows(starts, num_given, with_std=False)
        for latents, record in zip(first, examples, strict=True):
            num_valid = min(run.schema.timing.num_valid(record.num_frames), num_given)
            latents[:, num_valid:] = latents[:, num_valid - 1, None]  # as in training
        self._first_frames = run.whitening.whiten(torch.from_numpy(first).float())
        prepare_decoded_folder(self.folder)
        # An event file of its own, beside that of the curves.
        self._events = SummaryWriter(str(run_dir), filename_suffix=".samples")

    def write(self, model: nn.Module, step: int) -> Path:
        """Write samples of the weights after a step; returns the path of the contact sheet.

        Raises SamplingStoppedError where they are to be left out; then there is none of them.
        """
        rows = self._rows(TrainedRun(run=self.run, model=model, step=step))
        stem = self.folder / f"step_{step:08d}"
        moving, sheet = stem.with_suffix(".gif"), stem.with_suffix(".png")
        videos = dict(rows)
        shown = side_by_side(videos, NUM_SAMPLES, window=window_of_all(videos.values()))
        write_gif(moving, np.stack(list(shown)), self.run.median_fps)
        frame_step = self.run.schema.timing.frame_step
        contact_sheet([Row(caption, video, frame_step=frame_step) for caption, video in rows], sheet)
        for tag, path in (("samples/moving", moving), ("samples/grid", sheet)):
            show_picture(self._events, tag, path, step)
        self._events.flush()
        return sheet

    def _rows(self, trained: TrainedRun) -> list[tuple[str, npt.NDArray[np.uint8]]]:
        """The caption and the frames of each sample; its seed is its index."""
        run, seeds = self.run, range(NUM_SAMPLES)
        conditions = [
            [f"{name}={text}" for name, text in run.labels[example].items()] for example in self._examples
        ]
        num_steps = None if run.config.takes_span else NUM_STEPS
        sampler = ClipSampler(trained, SampleConfig(steps=num_steps, batch=NUM_SAMPLES), self._vae.device)
        first_frames = self._first_frames if run.config.first_frame == 1 else None
        self._require_going_on()
        samples = sampler.sample(
            seeds, run.config.frames, conditions=conditions, first_frames=first_frames,
            on_progress=self._require_going_on,
        )  # fmt: skip
        videos = []
        for latents in samples:
            self._require_going_on()
            videos.append(decode_sample(latents, run, self._vae, run.config.frames))
        captions = [
            ", ".join([f"step {trained.step}", f"seed {seed}", *texts])
            for seed, texts in zip(seeds, conditions, strict=True)
        ]
        return list(zip(captions, videos, strict=True))

    def _require_going_on(self, _: float = 0.0) -> None:
        if self._should_stop():
            raise SamplingStoppedError

    def close(self) -> None:
        """Write out what is buffered and close the event file."""
        self._events.close()
