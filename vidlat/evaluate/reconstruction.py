"""How well cached latents reconstruct their videos, beside two baselines that need no network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from vidlat.encode.block_pca import Block, BlockMoments
from vidlat.encode.device import resolve_batch, resolve_device
from vidlat.encode.vae import FrozenVAE
from vidlat.errors import DecodeError, InputError, StoreError, VidlatError
from vidlat.evaluate.baselines import PcaBaseline, with_block_averages
from vidlat.evaluate.quality import QualityMeter, Summary, VideoQuality, summarise
from vidlat.evaluate.source import WINDOW, SourceFrames
from vidlat.pipeline.decode_videos import decode_video, load_vae_of
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.job import choose_num_workers, num_threads_of_worker
from vidlat.store.reader import LatentCache, open_cache
from vidlat.types import InputVideo
from vidlat.video.contact_sheet import evenly_spaced
from vidlat.video.reader import read_prepared

Frames = npt.NDArray[np.float32]

T = TypeVar("T")

PIECE_FRAMES = 16
"""Frames that are measured together: with fewer, Python's overhead counts; more leave the CPU's cache."""


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


class EvaluationCount(NamedTuple):
    """How far an evaluation is: with `num_done` of `num_total` videos, each counted once for what it does."""

    doing: str
    num_done: int
    num_total: int


def counted(
    events: Iterable[EvaluationProgress], num_cached: int, max_videos: int = 0
) -> Iterator[tuple[EvaluationProgress, EvaluationCount]]:
    """The events of `evaluate_videos`, each with how far it is; a video without a source counts for nothing.

    num_cached: videos of the cache.
    """
    num_sources, num_compared = num_cached, 0
    read: set[str] = set()
    usable: set[str] = set()
    for event in events:
        if event.video_id in usable:
            num_compared += 1
            yield event, EvaluationCount("comparing", num_compared, len(usable))
            continue
        if not event.has_source:  # these come first
            num_sources -= 1
        else:
            read.add(event.video_id)
            usable.update([] if event.failure else [event.video_id])
        num_total = min(num_sources, max_videos or num_sources)
        yield event, EvaluationCount("reading sources", len(read), num_total)


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
    Raises, when called, StoreError, WeightsError or InputError if no cached video is among the inputs or the
    frames are too small for SSIM; and, when iterated, InputError if none can be compared.
    """
    cache = open_cache(latents)
    side = cache.schema.settings.size
    if side < WINDOW:
        raise InputError(
            f"{cache.where}: frames of {side}x{side} pixels cannot be compared, as the window of SSIM is "
            f"{WINDOW}x{WINDOW}; encode with a larger --size"
        )
    found = discover_videos([str(text) for text in inputs], ids=cache.schema.ids).videos
    by_id = {source.video_id: source for source in found}
    sources = [by_id[video_id] for video_id in cache.records() if video_id in by_id]
    device = resolve_device(device)
    frozen = load_vae_of(cache.schema, vae=vae, device=device, batch=resolve_batch(0, device))
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
    videos = _CachedVideos(cache, vae)
    baseline = PcaBaseline(videos.block, vae.latent_dim)
    usable, failures, num_compared = [], [], 0
    for (index, source), moments in _in_threads(videos.moments, list(enumerate(sources)), videos.stop):
        if isinstance(moments, VidlatError):
            failures.append(str(moments))
            yield EvaluationProgress(video_id=source.video_id, failure=str(moments))
        else:
            baseline.add(index, moments)
            usable.append((index, source))
            yield EvaluationProgress(video_id=source.video_id)
    compare = partial(videos.compare, baseline)
    for (_, source), comparison in _in_threads(compare, usable, videos.stop):
        if isinstance(comparison, VidlatError):
            failures.append(str(comparison))
            yield EvaluationProgress(video_id=source.video_id, failure=str(comparison))
        else:
            num_compared += 1
            yield EvaluationProgress(video_id=source.video_id, comparison=comparison)
    if not num_compared:
        raise InputError(f"no cached video can be compared: {sources[0].path}: {failures[0]}")


def _in_threads(
    function: Callable[[int, InputVideo], T], items: Sequence[tuple[int, InputVideo]], stop: Event
) -> Iterator[tuple[tuple[int, InputVideo], T | DecodeError | StoreError]]:
    """Each item with what the function returns or why it cannot, in order, several at once.

    As many as an encode has processes on a CPU, each with as many threads of the VAE. stop: set where nobody
    waits for the rest, so that it ends soon.
    """

    def attempt(item: tuple[int, InputVideo]) -> T | DecodeError | StoreError:
        try:
            return function(*item)
        except (DecodeError, StoreError) as error:
            return error

    num_at_once, num_threads = choose_num_workers("cpu"), num_threads_of_worker()
    pool = ThreadPoolExecutor(num_at_once, "evaluate", torch.set_num_threads, (num_threads,))
    try:
        waiting = deque((item, pool.submit(attempt, item)) for item in items)
        while waiting:
            item, result = waiting.popleft()
            yield item, result.result()
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _CachedVideos:
    """The videos of a cache and their sources, read side by side.

    block: the frames, rows and columns that a position of a latent frame stands for: the baselines' blocks.
    stop: once it is set, every video ends early.
    """

    def __init__(self, cache: LatentCache, vae: FrozenVAE) -> None:
        self.block: Block = (
            vae.timing.frames_per_latent,
            vae.space_compression,
            vae.space_compression,
        )
        self.stop = Event()
        self._cache, self._vae = cache, vae

    def moments(self, _: int, source: InputVideo) -> BlockMoments:
        """Of the source's blocks; raises DecodeError if it is not the one that was encoded."""
        moments, num_frames = BlockMoments(self.block), 0
        for frames in self._pieces(source):
            num_frames += len(frames)
            moments.update(frames)
        encoded = self._cache.records()[source.video_id].num_frames
        if num_frames != encoded:
            raise DecodeError(f"no longer has the {encoded} frames it was encoded with; encode it again")
        return moments

    def compare(self, baseline: PcaBaseline, index: int, source: InputVideo) -> VideoComparison:
        """The latents of a video, decoded, and the baselines with its source."""
        pca = baseline.fit_without(index)
        decoded = decode_video(self._cache, self._vae, source.video_id)
        meters = [QualityMeter(source.video_id, self._vae.timing.frame_step) for _ in range(3 if pca else 2)]
        for frames, averages in with_block_averages(self._pieces(source), self.block):
            copies = [np.stack(list(islice(decoded, len(frames)))), averages]
            if pca:
                copies.append(pca.reconstruct(frames))
            compared = SourceFrames(frames)
            for meter, copy in zip(meters, copies, strict=True):
                meter.update(compared, copy)
        of_vae, of_averaging, *of_pca = (meter.result() for meter in meters)
        return VideoComparison(vae=of_vae, averaging=of_averaging, pca=of_pca[0] if of_pca else None)

    def _pieces(self, source: InputVideo) -> Iterator[Frames]:
        """The prepared frames of a video (T, H, W), whole blocks but for the last."""
        prepared = read_prepared(source.path, source.selection, self._cache.schema.settings)
        frames = (frame.pixels for frame in prepared)
        size = -(-PIECE_FRAMES // self.block[0]) * self.block[0]
        while not self.stop.is_set() and (piece := list(islice(frames, size))):
            yield np.stack(piece)
