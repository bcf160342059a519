"""Some videos of a cache, moving: each decoded beside its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vidlat.encode.vae import FrozenVAE
from vidlat.errors import InputError
from vidlat.pipeline.decode_videos import decode_video, to_gray_levels
from vidlat.pipeline.source_frames import source_frames
from vidlat.store.reader import LatentCache
from vidlat.store.storage.interface import Unreachable
from vidlat.types import VideoRecord
from vidlat.video.display_window import WHITE, shown_in, window_in_words, window_of
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import write_video

Frames = npt.NDArray[np.uint8]

MOST_FRAMES = 96
"""Frames shown of a video: the first ones."""


class Moving(NamedTuple):
    """The first frames (T, H, W) of a video, decoded and in its source; None without source."""

    video_id: str
    fps: float
    source: Frames | None
    decoded: Frames


def read_moving(
    cache: LatentCache, vae: FrozenVAE, record: VideoRecord, without_source: dict[str, str]
) -> Moving:
    """Decode a video and read its source, or say by its id why it has none.

    Raises StoreError for latents that are missing or damaged.
    """
    decoded = np.stack([*map(to_gray_levels, islice(decode_video(cache, vae, record.video_id), MOST_FRAMES))])
    source = None
    try:
        source = np.stack([*map(to_gray_levels, islice(source_frames(cache, record), len(decoded)))])
    except (InputError, Unreachable) as error:
        without_source[record.video_id] = str(error)
    return Moving(record.video_id, record.fps, source, decoded)


def write_moving(videos: Sequence[Moving], path: Path) -> None:
    """Write an MP4 of videos, all at once, at the median of their frame rates; shorter ones begin again.

    A dark video is shown brighter, decoded as its source, and its labels say so. Raises InputError where the
    file cannot be written.
    """
    num_frames = max(len(video.decoded) for video in videos)
    shown: dict[str, Frames] = {}
    for video in videos:
        window = window_of(video.decoded if video.source is None else video.source)
        source = np.zeros_like(video.decoded) if video.source is None else video.source
        kinds = {"no source" if video.source is None else "source": source, "decoded": video.decoded}
        note = "" if window == WHITE else f"; {window_in_words(window)}"
        shown |= {
            f"{video.video_id}: {kind}{note}": _repeated(shown_in(window, frames), num_frames)
            for kind, frames in kinds.items()
        }
    num_columns = 2 * math.ceil(math.sqrt(len(videos) / 2))  # each beside its source; shaped like a screen
    fps = median([video.fps for video in videos if video.fps] or [0.0])
    write_video(path, side_by_side(shown, num_columns), fps)


def _repeated(frames: Frames, num_frames: int) -> Frames:
    return np.take(frames, range(num_frames), axis=0, mode="wrap")
