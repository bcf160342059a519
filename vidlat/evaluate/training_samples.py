"""Samples while a run trains: to look at in TensorBoard, and as files in the run's folder."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from vidlat.config import SampleConfig
from vidlat.evaluate.drawing import draw
from vidlat.pipeline.decode_videos import decode_latents, load_vae_of, to_gray_levels
from vidlat.store.reader import LatentCache
from vidlat.train.run import Run, TrainedRun
from vidlat.video.contact_sheet import contact_sheet
from vidlat.video.writer import prepare_folder, write_gif

NUM_SAMPLES, NUM_STEPS = 4, 25


class TrainingSamples:
    """Draws the same few samples of a run's averaged weights again and again.

    With the conditions, and where the run always has one the first frame, of as many training videos. Into
    `samples/step_<step>.gif`, side by side, and `.png`, a grid; both into TensorBoard. device: the network's.
    Raises WeightsError where the VAE of the latents cannot be found, InputError where the folder takes
    nothing.
    """

    def __init__(
        self, run: Run, cache: LatentCache, run_dir: Path, *, device: str, vae: str | None = None
    ) -> None:
        self.run, self.folder = run, run_dir / "samples"
        self._vae = load_vae_of(run.schema, vae=vae, device=device)
        labelled = [video_id for video_id in run.training if run.labels[video_id]] or list(run.training)
        self._examples = [labelled[index % len(labelled)] for index in range(NUM_SAMPLES)]
        records = cache.records()
        starts = np.array([records[video_id].start for video_id in self._examples])
        first, _ = cache.read_windows(starts, 1, with_std=False)
        self._first = run.whitening.whiten(torch.from_numpy(first).float())[:, :, 0]
        prepare_folder(self.folder)
        # An event file of its own, beside that of the curves.
        self._events = SummaryWriter(str(run_dir / "tensorboard"), filename_suffix=".samples")

    def write(self, model: nn.Module, step: int) -> Path:
        """Draw and show what the weights of a step make; returns the grid."""
        trained = TrainedRun(run=self.run, model=model, step=step)
        rows = [self._sample(trained, index) for index in range(NUM_SAMPLES)]
        videos = [video for _, video in rows]
        stem = self.folder / f"step_{step:08d}"
        moving, grid = stem.with_suffix(".gif"), stem.with_suffix(".png")
        write_gif(moving, np.concatenate(videos, axis=2), self.run.median_fps)
        contact_sheet(rows, grid)
        for tag, path in (("samples/moving", moving), ("samples/grid", grid)):
            self._show(tag, path, step)
        self._events.flush()
        return grid

    def _sample(self, trained: TrainedRun, index: int) -> tuple[str, npt.NDArray[np.uint8]]:
        """One sample, and what to call it."""
        run, seed = self.run, index
        asked = tuple(f"{name}={text}" for name, text in run.labels[self._examples[index]].items())
        config = SampleConfig(condition=asked, steps=NUM_STEPS, batch=1)
        given = self._first[index, None] if run.config.first_frame == 1 else None
        latents = draw(trained, self._vae, config, [seed], run.config.frames, given)
        frames = to_gray_levels(decode_latents(self._vae, latents[0].numpy(), run.config.frames))
        return ", ".join((f"seed {seed}", *asked)), frames

    def _show(self, tag: str, path: Path, step: int) -> None:
        # As SummaryWriter.add_video does it, which wants moviepy to make the same GIF.
        image = Summary.Image(encoded_image_string=path.read_bytes(), colorspace=1)
        self._events._get_file_writer().add_summary(  # type: ignore[no-untyped-call]
            Summary(value=[Summary.Value(tag=tag, image=image)]), step
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
