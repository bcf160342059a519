"""What a worker does with a batch: decode, preprocess, stack, encode to scratch; later, write its shards.

Knows nothing of Dask: the same two functions run in a test, in a thread, or on a cluster.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import statistics
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from vidlat import __version__
from vidlat.config import Preprocessing
from vidlat.encode.device import resolve_device
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.errors import DecodeError, EncodeError, VidlatError, WeightsError
from vidlat.pipeline.deadline import Clock, Deadline, start_deadline
from vidlat.pipeline.scratch import EncodedVideo, new_scratch, open_scratch
from vidlat.pipeline.vae_calls import Report, Stack, VAECalls
from vidlat.pipeline.workers import num_batches_of_worker
from vidlat.prefetch import prefetch
from vidlat.store.sources import content_hash, recorded_place
from vidlat.store.statistics import LatentStatistics, latent_statistics, to_stored
from vidlat.store.writer import write_shards
from vidlat.types import Annotation, FailureRecord, VideoRecord, VideoSource
from vidlat.video.preparation import PreparedVideo, prepare_video
from vidlat.video.reader import open_video

CALLS_AHEAD = 2
"""VAE calls whose stacks are decoded before their turn: videos differ in how long their frames take."""

_LOADING = Lock()
"""Several tasks may begin at once in a process, which holds the VAE once."""

OnHang = Callable[[str, int], None]
"""Told, in another thread, which video's decoder hangs and after how many frames; must end the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """All a worker needs to know: the VAE, proven by its hash, and how frames are prepared.

    keepbits: mantissa bits of a stored latent. time_limit_seconds: longest that decoding one video may take,
    0 for no limit.
    """

    vae_path: Path
    vae_hash: str
    preprocessing: Preprocessing
    stack: int
    batch: int
    device: str
    precision: str
    num_threads: int
    keepbits: int
    time_limit_seconds: float = 0.0

    @property
    def num_batches_a_worker(self) -> int:
        """Batches that a process of a local cluster works on at once."""
        return num_batches_of_worker(resolve_device(self.device))

    def load_vae(self) -> FrozenVAE:
        """The VAE on this machine; raises WeightsError if its weights are not those of the driver."""
        vae = load_vae(
            self.vae_path,
            stack=self.stack,
            batch=self.batch,
            device=self.device,
            precision=self.precision,
        )
        if vae.weights_hash != self.vae_hash:
            raise WeightsError(f"{self.vae_path}: holds other weights here than where the encode was started")
        return vae


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedBatch:
    """The outcome of a batch: every one of its videos is either in `videos` or in `failures`."""

    scratch: Path
    videos: list[EncodedVideo]
    failures: list[FailureRecord]

    @property
    def num_latent_frames(self) -> list[int]:
        """Of each encoded video."""
        return [video.shape[0] for video in self.videos]


def encode_batch(
    batch: Sequence[VideoSource],
    job: EncodeJob,
    report: Report = lambda _: None,
    *,
    most_stacks: int | None = None,
    scratch_parent: Path | None = None,
    on_hang: OnHang = lambda *_: None,
    clock: Clock = time.monotonic,
) -> EncodedBatch:
    """Encode videos to scratch files in bounded memory; one that fails is recorded and stops nothing.

    Frames are decoded in a thread of its own while the VAE is at work on those before.
    Stacks of neighbouring videos share a VAE call, whose shape is always the same until the memory does not
    suffice for it. most_stacks: of one call, where another attempt has shown that job.batch is too much.
    The scratch files lie in a new folder in `scratch_parent` (None: the system's), which `write_batch`
    removes. Raises ScratchError if it takes no more.
    """
    torch.set_num_threads(job.num_threads)  # each time: another user of the process may have changed it
    vae = vae_of_this_process(job)
    calls = VAECalls(vae.with_batch(most_stacks or job.batch), report)
    with new_scratch(scratch_parent) as scratch:
        progress = [_Video(source, scratch / str(index), job.keepbits) for index, source in enumerate(batch)]
        try:
            stacks = _decode(progress, job, on_hang, clock)
            with prefetch(stacks, CALLS_AHEAD * calls.vae.batch) as decoded:
                for video, stack in decoded:
                    if not video.refused:
                        calls.add(video, stack)
            calls.finish()
            outcomes = [video.finish(vae) for video in progress]
        finally:
            for video in progress:
                video.close()
    videos = [outcome for outcome in outcomes if isinstance(outcome, EncodedVideo)]
    if not videos:  # nothing will be written
        shutil.rmtree(scratch, ignore_errors=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, FailureRecord)]
    return EncodedBatch(scratch=scratch, videos=videos, failures=failures)


def _decode(
    videos: Sequence[_Video], job: EncodeJob, on_hang: OnHang, clock: Clock
) -> Generator[tuple[_Video, Stack]]:
    """The stacks of all videos, one after the other."""
    for video in videos:
        hang = partial(on_hang, video.source.video_id)
        with start_deadline(job.time_limit_seconds, hang, clock) as deadline:
            for stack in video.stacks(job, deadline):
                with deadline.paused():
                    yield video, stack


def write_batch(batch: EncodedBatch, cache_path: Path, start: int) -> list[VideoRecord]:
    """Write an encoded batch into the shards reserved at `start`; returns the records to commit.

    Raises StoreError. Done a second time it raises FileNotFoundError, or ShardExistsError where the first
    was cut off: another attempt needs another encode and another range.
    """
    try:
        ranges = write_shards(cache_path, start, [video.posterior() for video in batch.videos])
    finally:
        shutil.rmtree(batch.scratch, ignore_errors=True)
    return [
        replace(video.record, start=first, stop=stop)
        for video, (first, stop) in zip(batch.videos, ranges, strict=True)
    ]


@dataclass
class _Video:
    """A video on its way from frames to scratch files.

    unreadable: why its frames end, set by the thread that decodes. refused: why its latents are not kept, set
    by the thread of the VAE, which looks at nothing else: what shares a call must not depend on who is first.
    """

    source: VideoSource
    scratch: Path
    keepbits: int
    num_frames: int = 0
    num_damaged: int = 0
    warnings: list[str] = field(default_factory=list)
    height: int = 0
    width: int = 0
    sha256: str = ""
    pts_seconds: list[float | None] = field(default_factory=list)
    unreadable: FailureRecord | None = None
    refused: FailureRecord | None = None
    prepared: PreparedVideo | None = None
    shape: tuple[int, ...] = ()
    batch: int = 0
    files: tuple[BinaryIO, BinaryIO] | None = None

    @property
    def paths(self) -> tuple[Path, Path]:
        """The scratch files of mean and std."""
        return self.scratch.with_suffix(".mean"), self.scratch.with_suffix(".std")

    def stacks(self, job: EncodeJob, deadline: Deadline) -> Iterator[Stack]:
        """Yield stacks (S, size, size) in [0, 1], the last one filled with its last frame.

        Ends early where the video is refused or `unreadable`: it cannot be decoded, or its deadline passed.
        """
        pending: list[npt.NDArray[np.float32]] = []
        try:
            video = open_video(self.source.path, self.source.selection, self.warnings.append)
            self.prepared = prepare_video(video, job.preprocessing, self.warnings.append, deadline.check)
            for frame in self.prepared.frames():
                if not self.num_frames:
                    self.height, self.width = frame.height, frame.width
                self.num_frames = deadline.num_frames = self.num_frames + 1
                deadline.check()
                self.num_damaged += frame.is_damaged
                self.pts_seconds.append(frame.pts_seconds)
                pending.append(frame.pixels)
                if len(pending) == job.stack:
                    yield np.stack(pending)
                    pending.clear()
                    if self.refused:
                        return
                    deadline.check()
            self.sha256 = content_hash(self.source.path, self.source.selection.files)
        except DecodeError as error:
            self.unreadable = self._failure(error.kind, error)
        except Exception as error:
            # A library that breaks on one file, in whatever way, must not take the other videos along.
            self.unreadable = self._failure("decoder-error", error)
        if pending and not self.unreadable:
            yield np.stack(pending + [pending[-1]] * (job.stack - len(pending)))

    def append(self, mean: npt.NDArray[np.float32], std: npt.NDArray[np.float32], batch: int) -> None:
        """Add one stack's latents, each (L, t, h, w), from a call of `batch` stacks to the scratch files."""
        if self.refused:
            return
        self.batch = batch  # the smallest yet: calls never grow again
        try:
            stored = to_stored("mean", mean, self.keepbits), to_stored("std", std, self.keepbits)
        except EncodeError as error:
            self.fail("not-storable", error)
            return
        if self.files is None:
            mean_path, std_path = self.paths
            self.files = mean_path.open("wb"), std_path.open("wb")
        for file, latents in zip(self.files, stored, strict=True):
            file.write(np.ascontiguousarray(latents.swapaxes(0, 1)).data)
        latent_dim, num_latent_frames, *sides = mean.shape
        self.shape = (num_latent_frames + (self.shape[0] if self.shape else 0), latent_dim, *sides)

    def fail(self, kind: str, error: BaseException) -> None:
        """Refuse it: record why its latents will not be in the cache."""
        self.refused = self._failure(kind, error)

    def _failure(self, kind: str, error: BaseException) -> FailureRecord:
        reason = " ".join(str(error).split()) or type(error).__name__
        failure = failure_of(self.source, kind, reason)
        if not isinstance(error, VidlatError) and not self.source.hides_names:
            failure = replace(failure, traceback="".join(traceback.format_exception(error)))
        return failure

    def close(self) -> None:
        """Close the scratch files as they are: those that finished are closed already."""
        for file in self.files or ():
            with suppress(OSError):  # a full disk refuses what was not flushed
                file.close()

    def finish(self, vae: FrozenVAE) -> EncodedVideo | FailureRecord:
        """Close the scratch files and describe what is in them."""
        for file in self.files or ():
            file.close()
        failure = self.refused or self.unreadable
        if failure:
            return failure
        posterior = open_scratch(*self.paths, self.shape)
        sums = latent_statistics(posterior.mean, posterior.std, -(-self.num_frames // vae.compression))
        record = self._record(sums, vae.batch, str(vae.device))
        return EncodedVideo(record=record, mean_path=self.paths[0], std_path=self.paths[1], shape=self.shape)

    def _record(self, sums: LatentStatistics, full_batch: int, device: str) -> VideoRecord:
        fps, varies = frame_rate(self.pts_seconds)
        warnings = [without_names(self.source, warning) for warning in self.warnings]
        if self.num_damaged:
            warnings.append(f"{self.num_damaged} of {self.num_frames} frames are damaged")
        if self.batch < full_batch:
            smaller = f"{self.batch} stack{'s' if self.batch > 1 else ''}"
            warnings.append(f"out of memory: encoded in batches of {smaller} instead of {full_batch}")
        assert self.prepared is not None
        path, selection = recorded_place(self.source)
        annotation = self.source.annotation or Annotation()
        return VideoRecord(
            video_id=self.source.video_id,
            start=0,
            stop=0,
            num_frames=self.num_frames,
            fps=fps,
            pts_seconds=tuple(s or 0.0 for s in self.pts_seconds) if varies else None,
            source_path=path,
            source_selection=selection,
            source_num_bytes=self.source.num_bytes,
            source_mtime_ns=self.source.mtime_ns,
            source_sha256=self.sha256,
            source_height=self.height,
            source_width=self.width,
            **dataclasses.asdict(sums),
            warnings=tuple(warnings),
            versions=_versions(),
            device=device,
            batch=self.batch,
            value_range=self.prepared.value_range,
            box=self.prepared.box or (),
            subject=annotation.subject,
            labels=dict(annotation.labels),
        )


def failure_of(source: VideoSource, kind: str, reason: str) -> FailureRecord:
    """The record of a video that will not be in the cache."""
    path, selection = recorded_place(source)
    return FailureRecord(
        video_id=source.video_id,
        source_path=path,
        source_selection=selection,
        source_num_bytes=source.num_bytes,
        source_mtime_ns=source.mtime_ns,
        kind=kind,
        reason=without_names(source, reason),
    )


def without_names(source: VideoSource, text: str) -> str:
    """A text about a source, with the names of its files and folders left out if they are to be hidden."""
    if not source.hides_names:
        return text
    for name in (str(source.path), *source.selection.files, source.path.name):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "...", text)
    return text


def frame_rate(pts_seconds: Sequence[float | None]) -> tuple[float, bool]:
    """Median frame rate, 0.0 where times are missing, and whether the steps differ by more than a tenth."""
    times = [seconds for seconds in pts_seconds if seconds is not None]
    steps = [after - before for before, after in pairwise(times)]
    if len(times) < len(pts_seconds) or not steps or statistics.median(steps) <= 0:
        return 0.0, False
    step = statistics.median(steps)
    return 1 / step, max(steps) > 1.1 * step or min(steps) < 0.9 * step


def vae_of_this_process(job: EncodeJob) -> FrozenVAE:
    """The VAE of a job, loaded once a process and shared by all of its tasks."""
    with _LOADING:
        return _load_once(job)


@lru_cache(maxsize=1)
def _load_once(job: EncodeJob) -> FrozenVAE:
    return job.load_vae()


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {"vidlat": __version__} | {name: version(name) for name in ("torch", "monai", "av")}
