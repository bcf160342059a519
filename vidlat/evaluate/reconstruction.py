"""How well a cache's latents bring its videos back, with two floors that need no network beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.encode.vae import FrozenVAE
from vidlat.errors import DecodeError, InputError
from vidlat.evaluate.floors import AveragingFloor, BlockPca, PcaFloor
from vidlat.evaluate.quality import QualityMeter, Summary, VideoQuality, summarise
from vidlat.pipeline.decode import decode_video
from vidlat.store.reader import LatentCache
from vidlat.types import VideoSource
from vidlat.video.reader import read_prepared

Frames = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoComparison:
    """One video: the VAE's quality, the averaging floor's, and the PCA floor's (None for a lone video)."""

    vae: VideoQuality
    averaging: VideoQuality
    pca: VideoQuality | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All compared videos, their summaries, and the cached videos whose source was not found."""

    videos: list[VideoComparison]
    without_source: list[str]

    @property
    def summaries(self) -> dict[str, Summary]:
        """Means over the videos, by name: `vae`, `averaging` and, of more than one video, `pca`."""
        columns = {
            "vae": [video.vae for video in self.videos],
            "averaging": [video.averaging for video in self.videos],
            "pca": [video.pca for video in self.videos if video.pca],
        }
        return {name: summarise(qualities) for name, qualities in columns.items() if qualities}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "overall": {name: summary.to_dict() for name, summary in self.summaries.items()},
            "videos": [
                {
                    "vae": video.vae.to_dict(),
                    "averaging": video.averaging.to_dict(),
                    "pca": video.pca.to_dict() if video.pca else None,
                }
                for video in self.videos
            ],
            "without_source": self.without_source,
        }


def evaluate_cache(
    cache: LatentCache,
    vae: FrozenVAE,
    sources: Sequence[VideoSource],
    on_video: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Compare every cached video with its source after preprocessing, in bounded memory.

    Sources are read twice: the PCA floor is fitted on the other videos first. on_video: called with the id of
    each video read, twice a video. Raises InputError where no cached video has a source, or one cannot be
    decoded any more, or has another number of frames than when it was encoded.
    """
    by_id = {source.video_id: source for source in sources}
    video_ids = [video_id for video_id in cache.records() if video_id in by_id]
    if not video_ids:
        raise InputError("none of the cached videos is among --input; give the folder that was encoded")
    block = (vae.compression,) * 3
    pca = PcaFloor(block, vae.latent_dim)
    for index, video_id in enumerate(video_ids):
        for frames in _pieces(_prepared(by_id[video_id], cache), vae.stack):
            pca.update(index, frames)
        on_video(video_id)
    videos = []
    for index, video_id in enumerate(video_ids):
        videos.append(_compare(cache, vae, by_id[video_id], pca.fit_without(index)))
        on_video(video_id)
    return Evaluation(
        videos=videos,
        without_source=[video_id for video_id in cache.records() if video_id not in by_id],
    )


def _compare(
    cache: LatentCache, vae: FrozenVAE, source: VideoSource, pca: BlockPca | None
) -> VideoComparison:
    record = cache.records()[source.video_id]
    meter, pca_meter = QualityMeter(source.video_id), QualityMeter(source.video_id)
    averaging = AveragingFloor(source.video_id, (vae.compression,) * 3)
    decoded = decode_video(cache, vae, source.video_id)
    num_frames = 0
    for frames in _pieces(_prepared(source, cache), vae.stack):
        num_frames += len(frames)
        reconstruction = list(islice(decoded, len(frames)))
        if len(reconstruction) < len(frames):
            break
        meter.update(frames, np.stack(reconstruction))
        averaging.update(frames)
        if pca:
            pca_meter.update(frames, pca.reconstruct(frames))
    if num_frames != record.num_frames:
        raise InputError(
            f"{source.path}: no longer has the {record.num_frames} frames it was encoded with; "
            "encode it again"
        )
    return VideoComparison(
        vae=meter.result(), averaging=averaging.result(), pca=pca_meter.result() if pca else None
    )


def _prepared(source: VideoSource, cache: LatentCache) -> Iterator[Frames]:
    try:
        for frame in read_prepared(source.path, source.selection, cache.schema.settings.preprocessing):
            yield frame.pixels
    except DecodeError as error:
        raise InputError(f"{source.path}: {error}, though it did when it was encoded") from error


def _pieces(frames: Iterator[Frames], length: int) -> Iterator[Frames]:
    """Group frames into arrays (T, H, W) of `length`, the last one perhaps shorter."""
    while piece := list(islice(frames, length)):
        yield np.stack(piece)
