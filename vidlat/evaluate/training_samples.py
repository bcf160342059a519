"""Samples while a run trains: to look at in TensorBoard, and as files in the run's folder."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from vidlat.config import SampleConfig
from vidlat.evaluate.contact_sheet import contact_sheet
from vidlat.evaluate.samples import draw
from vidlat.pipeline.decode import decode_latents, load_vae_of, to_gray_levels
from vidlat.train.run import Run, TrainedRun
from vidlat.video.writer import prepare_folder, write_gif

NUM_SAMPLES, NUM_STEPS = 4, 25


class TrainingSamples:
    """Draws the same few samples of a run's averaged weights again and again.

    Into `samples/step_<step>.gif`, side by side, and `.png`, a grid; both into TensorBoard. Raises
    WeightsError where the VAE of the latents cannot be found, InputError where the folder takes nothing.
    """

    def __init__(self, run: Run, run_dir: Path, *, vae: str | None = None) -> None:
        self.run, self.folder = run, run_dir / "samples"
        self._vae = load_vae_of(run.schema, vae=vae, device=run.config.device)
        self._config = SampleConfig(num=NUM_SAMPLES, steps=NUM_STEPS, seed=run.config.seed)
        prepare_folder(self.folder)
        # An event file of its own, beside that of the curves.
        self._events = SummaryWriter(str(run_dir / "tensorboard"), filename_suffix=".samples")

    def write(self, model: nn.Module, step: int) -> Path:
        """Draw and show what the weights of a step make; returns the grid."""
        trained = TrainedRun(run=self.run, model=model, step=step)
        seeds = range(self._config.seed, self._config.seed + NUM_SAMPLES)
        latents = draw(trained, self._vae, self._config, seeds, self.run.config.frames)
        videos = [
            to_gray_levels(decode_latents(self._vae, sample, self.run.config.frames))
            for sample in latents.numpy()
        ]
        stem = self.folder / f"step_{step:08d}"
        moving, grid = stem.with_suffix(".gif"), stem.with_suffix(".png")
        write_gif(moving, np.concatenate(videos, axis=2), self.run.median_fps)
        contact_sheet([(f"seed {seed}", video) for seed, video in zip(seeds, videos, strict=True)], grid)
        for tag, path in (("samples/moving", moving), ("samples/grid", grid)):
            self._show(tag, path, step)
        self._events.flush()
        return grid

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
