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
from vidlat.pipeline.decode_videos import decode_video
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
    """All compared videos, their summaries, and the cached videos that could not be compared.

    without_source: ids of those whose source was not found. failed: why a source is not what was encoded, by
    id.
    """

    videos: list[VideoComparison]
    without_source: list[str]
    failed: dict[str, str]

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
            "failed": self.failed,
        }


def evaluate_cache(
    cache: LatentCache,
    vae: FrozenVAE,
    sources: Sequence[VideoSource],
    on_video: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Compare every cached video with its source after preprocessing, in bounded memory.

    Sources are read twice: the PCA floor is fitted on the other videos first. One that no longer decodes, or
    to another number of frames than when it was encoded, is told and stops nothing. on_video: called with the
    id of each video read, twice a video that is compared. Raises InputError where none can be.
    """
    by_id = {source.video_id: source for source in sources}
    video_ids = [video_id for video_id in cache.records() if video_id in by_id]
    if not video_ids:
        raise InputError("none of the cached videos is among --input; give the folder that was encoded")
    block = (vae.compression,) * 3
    pca = PcaFloor(block, vae.latent_dim)
    failed: dict[str, str] = {}
    for index, video_id in enumerate(video_ids):
        try:
            _fit(pca, index, cache, by_id[video_id])
        except DecodeError as error:
            failed[video_id] = str(error)
        on_video(video_id)
    if len(failed) == len(video_ids):
        raise InputError(
            f"no cached video can be compared: {by_id[video_ids[0]].path}: {failed[video_ids[0]]}"
        )
    videos = []
    for index, video_id in enumerate(video_ids):
        if video_id not in failed:
            videos.append(_compare(cache, vae, by_id[video_id], pca.fit_without(index)))
            on_video(video_id)
    return Evaluation(
        videos=videos,
        without_source=[video_id for video_id in cache.records() if video_id not in by_id],
        failed=failed,
    )


def _fit(pca: PcaFloor, index: int, cache: LatentCache, source: VideoSource) -> None:
    """Add a video to the floor; raises DecodeError if it is not the one that was encoded."""
    num_frames = 0
    for frames in _pieces(_prepared(source, cache), cache.schema.settings.stack):
        num_frames += len(frames)
        pca.update(index, frames)
    encoded = cache.records()[source.video_id].num_frames
    if num_frames != encoded:
        raise DecodeError(f"no longer has the {encoded} frames it was encoded with; encode it again")


def _compare(
    cache: LatentCache, vae: FrozenVAE, source: VideoSource, pca: BlockPca | None
) -> VideoComparison:
    meter, pca_meter = QualityMeter(source.video_id), QualityMeter(source.video_id)
    averaging = AveragingFloor(source.video_id, (vae.compression,) * 3)
    decoded = decode_video(cache, vae, source.video_id)
    for frames in _pieces(_prepared(source, cache), vae.stack):
        meter.update(frames, np.stack(list(islice(decoded, len(frames)))))
        averaging.update(frames)
        if pca:
            pca_meter.update(frames, pca.reconstruct(frames))
    return VideoComparison(
        vae=meter.result(), averaging=averaging.result(), pca=pca_meter.result() if pca else None
    )


def _prepared(source: VideoSource, cache: LatentCache) -> Iterator[Frames]:
    for frame in read_prepared(source.path, source.selection, cache.schema.settings.preprocessing):
        yield frame.pixels


def _pieces(frames: Iterator[Frames], length: int) -> Iterator[Frames]:
    """Group frames into arrays (T, H, W) of `length`, the last one perhaps shorter."""
    while piece := list(islice(frames, length)):
        yield np.stack(piece)
