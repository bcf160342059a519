"""Measuring what an estimate of an encode needs, in bounded time: headers, speed, free disk."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean

import torch

from vidlat.config import LatentSettings, Reading
from vidlat.encode.vae import FrozenVAE
from vidlat.errors import DecodeError, NotEnoughMemoryError
from vidlat.pipeline.dask_cluster import connect, in_each_worker
from vidlat.pipeline.dask_executor import job_of_this_worker
from vidlat.pipeline.encode_videos import PreparedEncode
from vidlat.pipeline.estimate import EncodeEstimate, Speed, estimate_encode
from vidlat.pipeline.fetch import on_this_disk
from vidlat.pipeline.job import (
    BATCHES_WAITING_PER_WORKER,
    EncodeJob,
    choose_num_workers,
    num_batches_of_worker,
    vae_of_this_process,
)
from vidlat.resources import num_cores
from vidlat.types import InputVideo, VideoHeader
from vidlat.video.reader import probe_video, read_prepared

SECONDS_OF_HEADERS = 30.0
"""How long headers are read for a dry run: about 15,000, which is all of most data sets."""

VIDEOS_DECODED = 3
FRAMES_DECODED = 64
SECONDS_DECODED = 2.0
"""Limits of the decoding that is timed; frames and seconds are per video."""

SECONDS_ENCODED = 2.0
"""How long VAE calls are timed; at least one is."""


def measure_size(prepared: PreparedEncode, headers: Mapping[str, VideoHeader | None]) -> EncodeEstimate:
    """The size of a planned encode, from the headers of its videos, or of some of them."""
    num_batches = prepared.job.num_batches_per_worker + BATCHES_WAITING_PER_WORKER
    return estimate_encode(
        prepared.plan.batches,
        headers,
        prepared.schema,
        stacks_per_call=prepared.job.batch,
        num_batches_at_once=num_batches * prepared.num_workers,
    )


def headers_of(
    prepared: PreparedEncode, most_seconds: float = SECONDS_OF_HEADERS
) -> dict[str, VideoHeader | None]:
    """The headers of the videos to encode that can be read in `most_seconds`; see `read_headers`."""
    return read_headers(prepared.plan.videos, prepared.job.settings, most_seconds)


def read_headers(
    sources: Sequence[InputVideo], how: Reading, most_seconds: float
) -> dict[str, VideoHeader | None]:
    """The headers of the videos by id; of a random part of them where time does not suffice for all.

    None where a file cannot be opened.
    """
    began = time.perf_counter()
    headers: dict[str, VideoHeader | None] = {}
    for source in random.Random(0).sample(sources, len(sources)):
        headers[source.video_id] = None
        with suppress(DecodeError), on_this_disk(source) as here:  # the encode will report why
            headers[source.video_id] = probe_video(here.path, here.selection, how)
        if time.perf_counter() - began > most_seconds:
            break
    return headers


def measure_speed(prepared: PreparedEncode) -> Speed | None:
    """Let the processes of the encode time the VAE and decoding; None if no video decodes.

    All do so at once: they slow each other down as in the encode. Those on this machine are started for it.
    Raises InputError where they cannot be started or reached, or one is killed.
    """
    sources = spread_by_size(prepared.plan.videos)
    began = time.perf_counter()
    with connect(prepared.scheduler, prepared.num_workers) as client:
        in_each_worker(client, _start, prepared.job)
        ready = time.perf_counter()
        trials = in_each_worker(client, _try_work, sources, prepared.job)
        done = time.perf_counter()
    start_seconds = ready - began + time.perf_counter() - done  # and to end them
    frames = [trial.frame_seconds for trial in trials if trial.frame_seconds is not None]
    if not frames:
        return None
    return Speed(
        num_processes=len(trials),
        num_readers=min(trial.num_readers for trial in trials),
        shared_cores=min(trial.shared_cores for trial in trials),
        frame_seconds=fmean(frames),
        call_seconds=fmean(trial.call_seconds for trial in trials),
        start_seconds=start_seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What one process has timed, as in `Speed`; frame_seconds: None where no video decodes."""

    num_readers: int
    shared_cores: int
    frame_seconds: float | None
    call_seconds: float


def _start(job: EncodeJob) -> None:
    vae_of_this_process(job_of_this_worker(job))


def _try_work(sources: Sequence[InputVideo], job: EncodeJob) -> _Trial:
    torch.set_num_threads(job.num_threads)
    vae = vae_of_this_process(job_of_this_worker(job))
    device = str(vae.device)
    return _Trial(
        num_readers=min(num_batches_of_worker(device), max(1, num_cores() // choose_num_workers(device))),
        shared_cores=job.num_threads if device == "cpu" else 0,
        frame_seconds=time_decoding(sources, job),
        call_seconds=time_vae(vae, job.settings),
    )


def time_vae(vae: FrozenVAE, settings: LatentSettings) -> float:
    """Seconds per VAE call of the encode's shape, after one call to warm up.

    Where memory runs out, the time of two calls of half as many stacks, as in the encode.
    """
    try:
        return _time_calls(vae, settings)
    except NotEnoughMemoryError:
        if vae.batch == 1:
            raise
        half = vae.with_batch(vae.batch // 2)
        return time_vae(half, settings) * vae.batch / half.batch


def _time_calls(vae: FrozenVAE, settings: LatentSettings) -> float:
    stacks = torch.rand(vae.batch, 1, vae.timing.stack, settings.size, settings.size)

    def call() -> None:
        for latents in vae.encode_stacks(stacks):
            latents.cpu()  # waits for the GPU

    call()
    num_calls, began = 0, time.perf_counter()
    while not num_calls or time.perf_counter() - began < SECONDS_ENCODED:
        call()
        num_calls += 1
    return (time.perf_counter() - began) / num_calls


def spread_by_size(sources: Sequence[InputVideo]) -> list[InputVideo]:
    """A few videos of all sizes; sources: at least one, sorted by size."""
    last = len(sources) - 1
    places = {last * number // (VIDEOS_DECODED - 1) for number in range(VIDEOS_DECODED)}
    return [sources[place] for place in sorted(places)]


def time_decoding(sources: Sequence[InputVideo], job: EncodeJob) -> float | None:
    """Seconds to decode and prepare a frame: the mean over the first frames of some videos.

    None where no frame decodes.
    """
    timed = [_time_video(source, job) for source in sources]
    num_frames = sum(number for number, _ in timed)
    # A video that fails before its first frame says nothing about the others.
    return sum(seconds for number, seconds in timed if number) / num_frames if num_frames else None


def _time_video(source: InputVideo, job: EncodeJob) -> tuple[int, float]:
    """The number of first frames decoded and prepared, and the seconds it took."""
    # Finding the range or the box of a video may decode all of it.
    how = replace(job.settings, intensity="uint8", crop="none")
    num_frames, began = 0, time.perf_counter()
    with suppress(DecodeError), on_this_disk(source) as here:  # the encode will report why
        began = time.perf_counter()
        for _ in islice(read_prepared(here.path, here.selection, how), FRAMES_DECODED):
            num_frames += 1
            if time.perf_counter() - began > SECONDS_DECODED:
                break
    return num_frames, time.perf_counter() - began
