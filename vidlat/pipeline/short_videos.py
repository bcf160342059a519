"""Which videos have fewer frames than wanted, such as stills among cines, before any is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

from vidlat.config import Reading
from vidlat.errors import DecodeError, InputError
from vidlat.paths import is_address
from vidlat.pipeline.folder import OPENED_AT_ONCE
from vidlat.prefetch import map_ahead
from vidlat.types import InputVideo
from vidlat.video.reader import open_video


def find_short(videos: Sequence[InputVideo], min_frames: int, how: Reading) -> list[str]:
    """Ids of the videos of fewer frames than `min_frames`, by their header or else by decoding so many.

    One that cannot be read is none of them: the encode reports why. Raises InputError for a video in a
    bucket, which would have to be fetched for this.
    """
    if any(is_address(video.source.path) for video in videos):
        raise InputError(
            "--min-frames: not for videos in a bucket, which are not opened to count their frames"
        )
    is_short = partial(_is_short, min_frames=min_frames, how=how)
    answers = map_ahead(is_short, videos, OPENED_AT_ONCE, 4 * OPENED_AT_ONCE)
    return [video.video_id for video, short in zip(videos, answers, strict=True) if short]


def _is_short(source: InputVideo, min_frames: int, how: Reading) -> bool:
    try:
        video = open_video(source.path, source.source.selection, lambda _: None, how)
        stated = video.header().num_frames
        if stated is not None and stated >= min_frames:
            return False
        return sum(1 for _ in islice(video.frames(), min_frames)) < min_frames
    except DecodeError:
        return False
