"""Measuring what an estimate of an encode needs, in bounded time: headers, speed, free disk."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice

import torch

from vidlat.config import LatentSettings, Reading
from vidlat.encode.device import resolve_device
from vidlat.encode.vae import FrozenVAE
from vidlat.errors import DecodeError, NotEnoughMemoryError
from vidlat.pipeline.encode_videos import PreparedEncode
from vidlat.pipeline.estimate import EncodeEstimate, Speed, estimate_encode
from vidlat.pipeline.fetch import on_this_disk
from vidlat.pipeline.job import BATCHES_WAITING_PER_WORKER, EncodeJob, choose_num_workers
from vidlat.resources import num_cores
from vidlat.types import InputVideo, VideoHeader
from vidlat.video.reader import probe_video, read_prepared

IMPORT_SECONDS = time.process_time()
"""What this process has taken to import torch, MONAI and Dask: its workers do too, once for all of them."""

START_SECONDS = 2.0
"""To start a Dask cluster on this machine and to end it, apart from imports."""

SECONDS_OF_HEADERS = 30.0
"""How long headers are read for a dry run: about 15,000, which is all of most data sets."""

VIDEOS_DECODED = 3
FRAMES_DECODED = 64
SECONDS_DECODED = 2.0
"""Limits of the decoding that is timed; frames and seconds are per video."""

SECONDS_ENCODED = 1.0
"""How long VAE calls are timed; at least one is."""


def measure_size(prepared: PreparedEncode, most_seconds: float = SECONDS_OF_HEADERS) -> EncodeEstimate:
    """The size of a planned encode, from the headers that can be read in `most_seconds`."""
    num_batches = prepared.job.num_batches_per_worker + BATCHES_WAITING_PER_WORKER
    return estimate_encode(
        prepared.plan.batches,
        read_headers(
            [source for batch in prepared.plan.batches for source in batch],
            prepared.job.settings,
            most_seconds,
        ),
        prepared.schema,
        stacks_per_call=prepared.job.batch,
        num_batches_at_once=num_batches * prepared.num_workers,
    )


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
    """Time VAE calls of the real shape and the first frames of a few videos; None if no video decodes."""
    job = prepared.job
    sources = [source for batch in prepared.plan.batches for source in batch]
    with _num_threads(job.num_threads):
        frame_seconds = time_decoding(sources, job)
        if frame_seconds is None:
            return None
        began = time.perf_counter()
        vae = job.load_vae()
        loading = time.perf_counter() - began
        return Speed(
            frame_seconds=frame_seconds,
            call_seconds=time_vae(vae, job.settings),
            start_seconds=0.0 if prepared.scheduler else IMPORT_SECONDS + START_SECONDS + loading,
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


def time_decoding(sources: Sequence[InputVideo], job: EncodeJob) -> float | None:
    """Seconds to decode and prepare a frame: the mean over the first frames of a few videos of all sizes.

    sources: at least one, sorted by size. None where no frame decodes.
    """
    last = len(sources) - 1
    places = {last * number // (VIDEOS_DECODED - 1) for number in range(VIDEOS_DECODED)}
    timed = [_time_video(sources[place], job) for place in sorted(places)]
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


def local_processes(prepared: PreparedEncode) -> int:
    """Number of processes that can work at once on this machine; more than that gain nothing."""
    device = resolve_device(prepared.job.device)
    on_gpu = device.startswith("cuda")
    room = choose_num_workers(device) if on_gpu else num_cores() // prepared.job.num_threads
    return max(1, min(prepared.num_workers, room))


def readers_per_process(prepared: PreparedEncode) -> int:
    """Number of videos that a process on this machine decodes at once; more than its cores gain nothing."""
    cores = num_cores() // local_processes(prepared)
    return max(1, min(prepared.job.num_batches_per_worker, cores))


@contextmanager
def _num_threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
