"""What a worker does with a batch: encode its videos to scratch files; later, write them into shards.

Knows nothing of executors: the same two functions run in a test, in a thread, or on a cluster.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import torch

from vidlat import __version__
from vidlat.encode.vae import FrozenVAE
from vidlat.pipeline.deadline import Clock
from vidlat.pipeline.failures import failure_from, without_names
from vidlat.pipeline.fetch import read_on_this_disk
from vidlat.pipeline.job import EncodeJob, vae_of_this_process
from vidlat.pipeline.read_video import Read, Stack, VideoFacts, read_in_time, read_video
from vidlat.pipeline.reader_process import read_apart
from vidlat.pipeline.scratch import EncodedVideo, ScratchLatents, new_scratch, open_scratch
from vidlat.pipeline.vae_calls import Report, VAECalls
from vidlat.prefetch import prefetch
from vidlat.store.latents.statistics import latent_statistics
from vidlat.store.latents.write_shards import write_shards
from vidlat.types import Annotation, FailureRecord, InputVideo, LatentStatistics, VideoRecord

CALLS_PREFETCHED = 2
"""VAE calls whose stacks are decoded in advance: videos differ in how long their frames take."""

OnHang = Callable[[str, int], None]
"""Called in another thread with the id of a video whose decoder hangs, and the frames decoded before it did.

It must end the process."""


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
    batch: Sequence[InputVideo],
    job: EncodeJob,
    report: Report = lambda _: None,
    *,
    most_stacks: int | None = None,
    scratch_parent: Path | None = None,
    on_hang: OnHang = lambda *_: None,
    clock: Clock = time.monotonic,
    read: Read = read_video,
) -> EncodedBatch:
    """Encode videos to scratch files in bounded memory; one that fails is recorded and stops no other.

    Frames are decoded in a thread of their own, or in a process for a GPU, while the VAE encodes earlier
    ones. Neighbouring videos share VAE calls, which all have the same shape unless memory runs out.
    most_stacks: per call, where an earlier attempt has shown that job.batch is too much. scratch_parent:
    where a new folder for the scratch files is made, None for the system's; `write_batch` removes it.
    on_hang, clock, read: of the thread; `read` turns each video into stacks.
    Raises ScratchError if that folder cannot be written, ReaderDiedError where a process that reads dies, and
    InputError where it does not start.
    """
    torch.set_num_threads(job.num_threads)  # each time: other code of the process may have changed it
    vae = vae_of_this_process(job)
    calls = VAECalls(vae.with_batch(most_stacks or job.batch), report)
    with new_scratch(scratch_parent) as scratch, ExitStack() as at_exit:
        latents = [
            ScratchLatents(scratch / str(index), job.settings.keepbits, vae.timing)
            for index in range(len(batch))
        ]
        for kept in latents:
            at_exit.callback(kept.abandon)
        found: dict[int, VideoFacts | FailureRecord] = {}

        def reading() -> Generator[tuple[int, Stack | VideoFacts | FailureRecord]]:
            # In a thread of its own; all it shares with the VAE's is whether a video is refused.
            for index, video in enumerate(batch):
                read_one = read_apart
                if not job.needs_readers(vae.device):
                    hangs = partial(on_hang, video.video_id)
                    read_one = partial(read_in_time, on_hang=hangs, clock=clock, read=read)
                read_here = partial(
                    read_one,
                    settings=job.settings,
                    timing=vae.timing,
                    limit_seconds=job.time_limit_seconds,
                    is_refused=latents[index].is_refused,
                )
                for item in read_on_this_disk(video, scratch, read_here):
                    yield index, item

        with prefetch(reading(), CALLS_PREFETCHED * calls.vae.batch) as items:
            for index, item in items:
                if isinstance(item, VideoFacts | FailureRecord):
                    found[index] = item
                elif not latents[index].is_refused():
                    calls.add(latents[index], item)
        calls.finish()
        outcomes = [
            _finish(video, found.get(index), latents[index], vae) for index, video in enumerate(batch)
        ]
    videos = [outcome for outcome in outcomes if isinstance(outcome, EncodedVideo)]
    if not videos:  # nothing will be written
        shutil.rmtree(scratch, ignore_errors=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, FailureRecord)]
    return EncodedBatch(scratch=scratch, videos=videos, failures=failures)


def write_batch(batch: EncodedBatch, cache: str | Path, start: int) -> list[VideoRecord]:
    """Write an encoded batch into the shards reserved at `start`; returns the records to commit.

    Raises StoreError. Called a second time it raises FileNotFoundError, or ShardExistsError where the first
    call was cut off: another attempt needs another encode and another range.
    """
    try:
        ranges = write_shards(cache, start, [video.posterior() for video in batch.videos])
    finally:
        shutil.rmtree(batch.scratch, ignore_errors=True)
    return [
        replace(video.record, start=first, stop=stop)
        for video, (first, stop) in zip(batch.videos, ranges, strict=True)
    ]


def _finish(
    video: InputVideo, found: VideoFacts | FailureRecord | None, latents: ScratchLatents, vae: FrozenVAE
) -> EncodedVideo | FailureRecord:
    """Close the scratch files and describe what is in them."""
    latents.close()
    if latents.refusal:
        return failure_from(video, *latents.refusal)
    if isinstance(found, FailureRecord):
        return found
    assert found is not None
    mean_path, std_path = latents.paths
    posterior = open_scratch(mean_path, std_path, latents.shape)
    num_unpadded = vae.timing.num_unpadded(found.num_frames)
    statistics = latent_statistics(posterior.mean, posterior.std, num_unpadded)
    record = _record(video, found, statistics, latents.batch, vae)
    return EncodedVideo(record=record, mean_path=mean_path, std_path=std_path, shape=latents.shape)


def _record(
    video: InputVideo, facts: VideoFacts, statistics: LatentStatistics, batch: int, vae: FrozenVAE
) -> VideoRecord:
    warnings = [without_names(video, warning) for warning in facts.warnings]
    if batch < vae.batch:
        smaller = f"{batch} stack{'s' if batch > 1 else ''}"
        warnings.append(f"out of memory: encoded in batches of {smaller} instead of {vae.batch}")
    return VideoRecord(
        video_id=video.video_id,
        start=0,
        stop=0,
        num_frames=facts.num_frames,
        fps=facts.fps,
        pts_seconds=facts.pts_seconds,
        source=video.recorded_source._replace(sha256=facts.sha256),
        height=facts.height,
        width=facts.width,
        value_range=facts.value_range,
        box=facts.box or (),
        annotation=video.annotation or Annotation(),
        latents=statistics,
        warnings=tuple(warnings),
        versions=_versions(vae.library),
        device=str(vae.device),
        batch=batch,
    )


@lru_cache(maxsize=1)
def _versions(library: str) -> dict[str, str]:
    return {"vidlat": __version__} | {name: version(name) for name in ("torch", library, "av")}
