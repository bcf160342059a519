"""The frames of a cached video as they are in its source."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vidlat.errors import DecodeError, InputError
from vidlat.pipeline.cached_sources import find_cached_source
from vidlat.pipeline.fetch import on_this_disk
from vidlat.store.reader import LatentCache
from vidlat.types import VideoRecord
from vidlat.video.reader import read_prepared


def source_frames(cache: LatentCache, record: VideoRecord) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the frames (H, W) float32 in [0, 1] of a video's source, as the VAE saw them, as many as cached.

    Raises InputError if the source is gone or is not what was encoded, Unreachable for one in a bucket.
    """
    source = find_cached_source(record.video_id, record.source)
    where, num_frames = source.source.path, 0
    try:
        with on_this_disk(source) as here:
            for frame in read_prepared(here.path, here.selection, cache.schema.settings):
                if num_frames == record.num_frames:
                    return
                yield frame.pixels
                num_frames += 1
    except DecodeError as error:
        raise InputError(f"its source {where} {error}; it was readable when it was encoded") from error
    if num_frames < record.num_frames:
        raise InputError(f"its source {where} decodes to fewer frames than when it was encoded")
