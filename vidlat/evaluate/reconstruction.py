"""How well cached latents reconstruct their videos, beside two baselines that need no network."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.encode.block_pca import Block, BlockPca
from vidlat.encode.vae import FrozenVAE
from vidlat.errors import DecodeError, InputError, StoreError
from vidlat.evaluate.baselines import AveragingBaseline, PcaBaseline
from vidlat.evaluate.quality import QualityMeter, Summary, VideoQuality, summarise
from vidlat.pipeline.decode_videos import decode_video, load_vae_of
from vidlat.pipeline.discover import discover_videos
from vidlat.prefetch import prefetch
from vidlat.store.reader import LatentCache, open_cache
from vidlat.types import InputVideo
from vidlat.video.contact_sheet import evenly_spaced
from vidlat.video.reader import read_prepared

Frames = npt.NDArray[np.float32]

PIECES_PREFETCHED = 2
"""Pieces of a source that are decoded in a thread while earlier ones are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoComparison:
    """Quality of one video: of the VAE and of each baseline (pca: None for a single video)."""

    vae: VideoQuality
    averaging: VideoQuality
    pca: VideoQuality | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationProgress:
    """What was done with one cached video; each is read twice, first to fit the PCA baseline.

    comparison: its figures, after the second time. failure: why it cannot be compared. has_source: whether it
    is among the inputs.
    """

    video_id: str
    comparison: VideoComparison | None = None
    failure: str | None = None
    has_source: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All compared videos, and the cached videos that could not be compared.

    without_source: ids of those not among the inputs. failed: by id, why a video cannot be compared.
    """

    videos: list[VideoComparison]
    without_source: list[str]
    failed: dict[str, str]

    @classmethod
    def of(cls, events: Iterable[EvaluationProgress]) -> Evaluation:
        """Collect what `evaluate_videos` yields."""
        seen = list(events)
        return cls(
            videos=[event.comparison for event in seen if event.comparison],
            without_source=[event.video_id for event in seen if not event.has_source],
            failed={event.video_id: event.failure for event in seen if event.failure},
        )

    @property
    def summaries(self) -> dict[str, Summary]:
        """Means over the videos by name: `vae`, `averaging` and, of more than one video, `pca`."""
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


def evaluate_videos(
    latents: str | Path,
    inputs: Sequence[str | Path],
    *,
    max_videos: int = 0,
    vae: str | None = None,
    device: str = "auto",
) -> Iterator[EvaluationProgress]:
    """Compare the videos of the cache at `latents` with their sources after preprocessing, in bounded memory.

    inputs: what the cache was encoded from. max_videos: compare this many, evenly spread over the sorted ids;
    0 for all. vae: where its VAE is, if not where it was.
    A source that no longer decodes, or to another number of frames than when it was encoded, is reported, as
    are damaged latents, and the others are compared.
    Raises, when called, StoreError, WeightsError or InputError if no cached video is among the inputs; and,
    when iterated, InputError if none can be compared.
    """
    cache = open_cache(latents)
    found = discover_videos([str(text) for text in inputs], ids=cache.schema.ids).videos
    by_id = {source.video_id: source for source in found}
    sources = [by_id[video_id] for video_id in cache.records() if video_id in by_id]
    frozen = load_vae_of(cache.schema, vae=vae, device=device)
    if not sources:
        raise InputError("none of the cached videos is among --input; give the folder that was encoded")
    without_source = [video_id for video_id in cache.records() if video_id not in by_id]
    if max_videos:
        sources = [sources[index] for index in evenly_spaced(len(sources), max_videos)]
    return _evaluate(cache, frozen, sources, without_source)


def _evaluate(
    cache: LatentCache, vae: FrozenVAE, sources: Sequence[InputVideo], without_source: Sequence[str]
) -> Iterator[EvaluationProgress]:
    for video_id in without_source:
        yield EvaluationProgress(video_id=video_id, has_source=False)
    baseline = PcaBaseline(_block_of(vae), vae.latent_dim)
    usable, failures, num_compared = [], [], 0
    for index, source in enumerate(sources):
        try:
            _fit(baseline, index, cache, vae, source)
        except DecodeError as error:
            failures.append(str(error))
            yield EvaluationProgress(video_id=source.video_id, failure=str(error))
        else:
            usable.append((index, source))
            yield EvaluationProgress(video_id=source.video_id)
    for index, source in usable:
        try:
            comparison = _compare(cache, vae, source, baseline.fit_without(index))
        except (DecodeError, StoreError) as error:
            failures.append(str(error))
            yield EvaluationProgress(video_id=source.video_id, failure=str(error))
        else:
            num_compared += 1
            yield EvaluationProgress(video_id=source.video_id, comparison=comparison)
    if not num_compared:
        raise InputError(f"no cached video can be compared: {sources[0].path}: {failures[0]}")


def _block_of(vae: FrozenVAE) -> Block:
    """The frames, rows and columns that a position of a latent frame stands for: the baselines' blocks."""
    return vae.timing.frames_per_latent, vae.compression, vae.compression


def _fit(baseline: PcaBaseline, index: int, cache: LatentCache, vae: FrozenVAE, source: InputVideo) -> None:
    """Add a video to the baseline; raises DecodeError if it is not the one that was encoded."""
    num_frames = 0
    for frames in _pieces(cache, vae, source):
        num_frames += len(frames)
        baseline.update(index, frames)
    encoded = cache.records()[source.video_id].num_frames
    if num_frames != encoded:
        raise DecodeError(f"no longer has the {encoded} frames it was encoded with; encode it again")


def _compare(cache: LatentCache, vae: FrozenVAE, source: InputVideo, pca: BlockPca | None) -> VideoComparison:
    stack = vae.timing.frame_step
    meter, pca_meter = QualityMeter(source.video_id, stack), QualityMeter(source.video_id, stack)
    averaging = AveragingBaseline(source.video_id, _block_of(vae), stack)
    decoded = decode_video(cache, vae, source.video_id)
    with prefetch(_pieces(cache, vae, source), PIECES_PREFETCHED) as pieces:
        for frames in pieces:
            meter.update(frames, np.stack(list(islice(decoded, len(frames)))))
            averaging.update(frames)
            if pca:
                pca_meter.update(frames, pca.reconstruct(frames))
    return VideoComparison(
        vae=meter.result(), averaging=averaging.result(), pca=pca_meter.result() if pca else None
    )


def _pieces(cache: LatentCache, vae: FrozenVAE, source: InputVideo) -> Generator[Frames]:
    """The prepared frames of a video (T, H, W), as many at a time as the VAE decodes, fewer at the end."""
    settings = cache.schema.settings
    frames = (frame.pixels for frame in read_prepared(source.path, source.selection, settings))
    while piece := list(islice(frames, vae.batch * vae.timing.frames_per_call)):
        yield np.stack(piece)
