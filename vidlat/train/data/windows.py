"""Which windows of which videos a step trains on; only integers, no latents are read here.

A window is a whole number of stacks, because the VAE encodes the frames of a stack together. In a video
shorter than the window the last real latent frame is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vidlat.errors import TrainError
from vidlat.timing import Timing
from vidlat.train.data.seeding import Draw, SeedKey, Stream, generator
from vidlat.types import VideoRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowShape:
    """The number of stacks of a window, and the latent frames of each."""

    num_stacks: int
    timing: Timing

    @classmethod
    def of_clip(cls, frames: int, timing: Timing) -> WindowShape:
        """The windows of clips of `frames` video frames; raises TrainError unless these are whole stacks."""
        num_stacks, stack, step = timing.num_calls(frames), timing.frames_per_call, timing.frame_step
        above = timing.frames_of(num_stacks)
        if frames != above:
            lengths = ", ".join(str(timing.frames_of(number)) for number in (1, 2, 3))
            nearest = min(max(above - step, stack), above, key=lambda number: abs(number - frames))
            raise TrainError(
                f"frames: got {frames}; expected whole stacks of this cache, {lengths} and so on: "
                f"the nearest is {nearest}"
            )
        return cls(num_stacks=num_stacks, timing=timing)

    @property
    def stack_length(self) -> int:
        """Latent frames of a stack."""
        return self.timing.latents_per_call

    @property
    def num_latent_frames(self) -> int:
        """Latent frames of a window."""
        return self.timing.latents_of(self.num_stacks)

    def covering(self, num_latent_frames: int) -> int:
        """Latent frames of the fewest stacks that hold so many."""
        return self.timing.latents_of(self.timing.num_calls_with(num_latent_frames))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One training item: consecutive stacks of a video, and the key of its random draws.

    start: on the cache's time axis. num_valid: the number of leading latent frames that hold real frames.
    """

    video_id: str
    start: int
    num_valid: int
    key: SeedKey


def training_windows(
    records: Sequence[VideoRecord],
    shape: WindowShape,
    *,
    seed: int,
    step: int,
    batch: int,
    rank: int = 0,
    num_ranks: int = 1,
) -> list[Window]:
    """The windows of one step, counted from 0: every video once per epoch, in a new random order each time.

    Epochs follow each other without a gap, so a batch may span two. batch: windows of each rank; together
    they are those of one rank with batch * num_ranks.
    """
    windows = []
    for index in range(rank * batch, (rank + 1) * batch):
        epoch, place = divmod(step * batch * num_ranks + index, len(records))
        record = records[_order(seed, epoch, len(records))[place]]
        windows.append(_draw_window(record, shape, (seed, Stream.TRAINING, step, index)))
    return windows


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_videos: int) -> np.ndarray:
    """The order of an epoch; cached, because with a million videos it takes longer than a step."""
    order = generator((seed, Stream.TRAINING, epoch, 0), Draw.ORDER).permutation(num_videos)
    order.setflags(write=False)
    return order


def validation_windows(
    records: Sequence[VideoRecord], shape: WindowShape, *, seed: int, num_windows: int
) -> list[Window]:
    """The windows of every validation, always the same, spread over the videos in a random order.

    The order keeps videos of one kind from sharing a timestep or, if there are more videos than windows, from
    being the only ones.
    """
    order = generator((seed, Stream.VALIDATION, 0, 0), Draw.ORDER).permutation(len(records))
    return [
        _draw_window(records[order[index % len(records)]], shape, (seed, Stream.VALIDATION, 0, index))
        for index in range(num_windows)
    ]


def window_places(record: VideoRecord, shape: WindowShape) -> range:
    """Where the windows of a video may start, in latent frames of the video: at each of its VAE calls."""
    # Of stacks without padding, where they fill a window: a still end is no motion to learn.
    last = max(shape.timing.num_whole_calls(record.num_frames) - shape.num_stacks, 0)
    step = shape.timing.latent_step
    return range(0, last * step + 1, step)


def _draw_window(record: VideoRecord, shape: WindowShape, key: SeedKey) -> Window:
    places = window_places(record, shape)
    first = places[int(generator(key, Draw.WINDOW).integers(len(places)))]
    num_valid = min(shape.timing.num_valid(record.num_frames) - first, shape.num_latent_frames)
    return Window(video_id=record.video_id, start=record.start + first, num_valid=num_valid, key=key)
