"""What a worker does with a batch: decode, preprocess, stack, encode to scratch; later, write its shards.

Knows nothing of Dask: the same two functions run in a test, in a thread, or on a cluster.
"""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from vidlat import __version__
from vidlat.config import Fit
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.errors import DecodeError, EncodeError, VidlatError, WeightsError
from vidlat.pipeline.discover import content_hash
from vidlat.store.statistics import LatentStatistics, latent_statistics, to_stored
from vidlat.store.writer import write_shards
from vidlat.types import FailureRecord, LatentPosterior, VideoRecord, VideoSource
from vidlat.video.preprocess import preprocess_frame
from vidlat.video.reader import read_frames

Report = Callable[[int], None]
"""Receives the number of frames encoded since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """All a worker needs to know: the VAE, proven by its hash, and how frames are prepared."""

    vae_path: Path
    vae_hash: str
    size: int
    fit: Fit
    stack: int
    batch: int
    device: str
    precision: str
    num_threads: int

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
class EncodedVideo:
    """A video whose latents lie in scratch files, (t, L, h, w) float16; its record lacks only the range."""

    record: VideoRecord
    mean_path: Path
    std_path: Path
    shape: tuple[int, ...]

    def posterior(self) -> LatentPosterior:
        """Mean and std as memory maps of (L, t, h, w)."""
        return _open_scratch(self.mean_path, self.std_path, self.shape)


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
    scratch_parent: Path | None = None,
) -> EncodedBatch:
    """Encode videos to scratch files in bounded memory; one that fails is recorded and stops nothing.

    Stacks of neighbouring videos share a VAE call, whose shape is always the same. The scratch files lie in
    a new folder in `scratch_parent` (None: the system's), which `write_batch` removes.
    """
    vae = _vae_of_this_process(job)
    scratch = Path(tempfile.mkdtemp(prefix="vidlat-", dir=scratch_parent))
    try:
        progress = [_Video(source, scratch / str(index)) for index, source in enumerate(batch)]
        call: list[tuple[_Video, npt.NDArray[np.float32]]] = []
        for video in progress:
            for stack in video.stacks(job):
                call.append((video, stack))
                if len(call) == job.batch:
                    _encode_call(vae, call, report)
        _encode_call(vae, call, report)
        outcomes = [video.finish(vae) for video in progress]
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    videos = [outcome for outcome in outcomes if isinstance(outcome, EncodedVideo)]
    if not videos:  # nothing will be written
        shutil.rmtree(scratch, ignore_errors=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, FailureRecord)]
    return EncodedBatch(scratch=scratch, videos=videos, failures=failures)


def write_batch(batch: EncodedBatch, cache_path: Path, start: int) -> list[VideoRecord]:
    """Write an encoded batch into the shards reserved at `start`; returns the records to commit."""
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
    """A video on its way from frames to scratch files."""

    source: VideoSource
    scratch: Path
    num_frames: int = 0
    num_damaged: int = 0
    warnings: list[str] = field(default_factory=list)
    height: int = 0
    width: int = 0
    sha256: str = ""
    pts_seconds: list[float | None] = field(default_factory=list)
    failure: FailureRecord | None = None
    shape: tuple[int, ...] = ()
    files: tuple[BinaryIO, BinaryIO] | None = None

    @property
    def paths(self) -> tuple[Path, Path]:
        """The scratch files of mean and std."""
        return self.scratch.with_suffix(".mean"), self.scratch.with_suffix(".std")

    def stacks(self, job: EncodeJob) -> Iterator[npt.NDArray[np.float32]]:
        """Yield stacks (S, size, size) in [0, 1], the last one filled with its last frame.

        Ends early, with `failure` set, where the video cannot be decoded.
        """
        pending: list[npt.NDArray[np.float32]] = []
        try:
            for frame in read_frames(self.source.path, self.warnings.append):
                if not self.num_frames:
                    self.height, self.width = frame.pixels.shape
                self.num_frames += 1
                self.num_damaged += frame.is_damaged
                self.pts_seconds.append(frame.pts_seconds)
                pending.append(preprocess_frame(frame, job.size, job.fit))
                if len(pending) == job.stack:
                    yield np.stack(pending)
                    pending.clear()
            self.sha256 = content_hash(self.source.path)
        except DecodeError as error:
            self.fail(error.kind, error)
        except Exception as error:
            # A library that breaks on one file, in whatever way, must not take the other videos along.
            self.fail("decoder-error", error)
        if pending and not self.failure:
            yield np.stack(pending + [pending[-1]] * (job.stack - len(pending)))

    def append(self, mean: npt.NDArray[np.float32], std: npt.NDArray[np.float32]) -> None:
        """Add one stack's latents, each (L, t, h, w), to the scratch files."""
        if self.failure:
            return
        try:
            stored = to_stored("mean", mean), to_stored("std", std)
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
        """Record why this video will not be in the cache."""
        self.failure = FailureRecord(
            video_id=self.source.video_id,
            source_path=str(self.source.path),
            source_num_bytes=self.source.num_bytes,
            source_mtime_ns=self.source.mtime_ns,
            kind=kind,
            reason=" ".join(str(error).split()) or type(error).__name__,
            traceback="" if isinstance(error, VidlatError) else "".join(traceback.format_exception(error)),
        )

    def finish(self, vae: FrozenVAE) -> EncodedVideo | FailureRecord:
        """Close the scratch files and describe what is in them."""
        for file in self.files or ():
            file.close()
        if self.failure:
            return self.failure
        posterior = _open_scratch(*self.paths, self.shape)
        sums = latent_statistics(posterior.mean, posterior.std, -(-self.num_frames // vae.compression))
        record = self._record(sums, vae.batch, str(vae.device))
        return EncodedVideo(record=record, mean_path=self.paths[0], std_path=self.paths[1], shape=self.shape)

    def _record(self, sums: LatentStatistics, batch: int, device: str) -> VideoRecord:
        fps, varies = frame_rate(self.pts_seconds)
        damaged = [f"{self.num_damaged} of {self.num_frames} frames are damaged"] if self.num_damaged else []
        return VideoRecord(
            video_id=self.source.video_id,
            start=0,
            stop=0,
            num_frames=self.num_frames,
            fps=fps,
            pts_seconds=tuple(s or 0.0 for s in self.pts_seconds) if varies else None,
            source_path=str(self.source.path),
            source_num_bytes=self.source.num_bytes,
            source_mtime_ns=self.source.mtime_ns,
            source_sha256=self.sha256,
            source_height=self.height,
            source_width=self.width,
            **dataclasses.asdict(sums),
            warnings=(*self.warnings, *damaged),
            versions=_versions(),
            device=device,
            batch=batch,
        )


def frame_rate(pts_seconds: Sequence[float | None]) -> tuple[float, bool]:
    """Median frame rate, 0.0 where times are missing, and whether the steps differ by more than a tenth."""
    times = [seconds for seconds in pts_seconds if seconds is not None]
    steps = [after - before for before, after in pairwise(times)]
    if len(times) < len(pts_seconds) or not steps or statistics.median(steps) <= 0:
        return 0.0, False
    step = statistics.median(steps)
    return 1 / step, max(steps) > 1.1 * step or min(steps) < 0.9 * step


def _open_scratch(mean_path: Path, std_path: Path, shape: tuple[int, ...]) -> LatentPosterior:
    maps = (np.memmap(path, np.float16, "r", shape=shape) for path in (mean_path, std_path))
    mean, std = (latents.transpose(1, 0, 2, 3) for latents in maps)
    return LatentPosterior(mean=mean, std=std)


def _encode_call(vae: FrozenVAE, call: list[tuple[_Video, npt.NDArray[np.float32]]], report: Report) -> None:
    """Run the VAE on the stacks collected, hand the latents to their videos, and empty the list."""
    if not call:
        return
    stacks = torch.from_numpy(np.stack([stack for _, stack in call]))[:, None]
    mean, std = (latents.cpu().numpy() for latents in vae.encode_stacks(stacks))
    for index, (video, _) in enumerate(call):
        video.append(mean[index], std[index])
    report(len(call) * vae.stack)
    call.clear()


@lru_cache(maxsize=1)
def _vae_of_this_process(job: EncodeJob) -> FrozenVAE:
    torch.set_num_threads(job.num_threads)
    return job.load_vae()


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {"vidlat": __version__} | {name: version(name) for name in ("torch", "monai", "av")}
