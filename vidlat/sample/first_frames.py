"""The picture or the video that samples begin with, as latent frames."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import torch

from vidlat.encode.vae import FrozenVAE
from vidlat.errors import DecodeError, InputError, one_line
from vidlat.files import require_regular_file
from vidlat.train.runs.frozen_model import FrozenModel
from vidlat.video.reader import lone_file, read_prepared


def read_first_frames(path: Path, run: FrozenModel, vae: FrozenVAE) -> torch.Tensor:
    """The whitened latent frames (L, K, h, w) that a run's samples of a picture or a video begin with.

    They are the first K of the last VAE calls that hold as many, of K that the run is trained with, so that a
    sample begins with the last frames of the video. Before a video that is shorter its first frame is
    repeated, and a picture is repeated too. Raises InputError if the file cannot be read.
    """
    timing, num_given = run.schema.timing, run.config.first_frames
    num_frames = timing.frames_of(timing.num_calls_with(num_given))
    try:
        require_regular_file(path)
        frames = read_prepared(*lone_file(path), run.schema.settings)
        last = [frame.pixels for frame in deque(frames, maxlen=num_frames)]
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as the first frame: {one_line(error)}") from error
    last = [last[0]] * (num_frames - len(last)) + last
    mean, _ = vae.with_batch(1).encode(torch.from_numpy(np.stack(last))[None, None])
    return run.whitening.whiten(mean)[0, :, :num_given]
