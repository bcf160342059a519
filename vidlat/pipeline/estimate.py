"""The size and duration of an encode, calculated from the headers of its videos."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vidlat.pipeline.plan import Batch
from vidlat.store.schema import CacheSchema
from vidlat.types import InputVideo, VideoHeader

COMPRESSED_SHARE = 0.8
"""Bytes on disk per byte of float16 latents; 0.78 for ultrasound and the tiny VAE (means 0.93, stds 0.60)."""

NUM_BYTES = 2 * 2
"""Of a latent value: float16, of mean and of std."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeEstimate:
    """The size of an encode.

    num_headers: videos whose header was read; the others are assumed to hold as many frames per byte.
    num_frames, seconds: of the videos whose header states them. calls_of_batches: calls of the VAE for each
    batch. num_latent_frames: that they give. latent_bytes: by how much the cache will grow. scratch_bytes:
    what scratch holds at one time, at most. unknown: ids of videos whose header states no number of frames.
    broken: ids of videos that will fail, since their file cannot be opened or holds no frame of what was
    selected. Neither adds to the size.
    """

    num_headers: int
    num_frames: int
    seconds: float
    calls_of_batches: tuple[int, ...]
    num_latent_frames: int
    latent_bytes: int
    scratch_bytes: int
    unknown: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def num_calls(self) -> int:
        """Calls of the VAE."""
        return sum(self.calls_of_batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What the processes take, working at once: to decode and prepare a frame, per VAE call, and to start.

    num_readers: that decode at once in a process. shared_cores: of a process, for them and the VAE; 0
    where the VAE is on hardware of its own, a GPU.
    """

    num_processes: int
    num_readers: int
    shared_cores: int
    frame_seconds: float
    call_seconds: float
    start_seconds: float


def bytes_on_disk(num_values: float) -> float:
    """What a cache takes for so many values of the posterior mean, and as many standard deviations."""
    return num_values * NUM_BYTES * COMPRESSED_SHARE


def fill_in_headers(
    sources: Sequence[InputVideo], headers: Mapping[str, VideoHeader]
) -> dict[str, VideoHeader]:
    """A header for each source; where none was read, one with as many frames per byte as those that were."""
    read = [source for source in sources if source.video_id in headers]
    num_bytes = max(1, sum(source.source.num_bytes for source in read))
    frames_per_byte = sum(headers[source.video_id].num_frames or 0 for source in read) / num_bytes
    seconds_per_byte = sum(headers[source.video_id].seconds or 0 for source in read) / num_bytes
    return {
        source.video_id: headers.get(source.video_id)
        or VideoHeader(
            num_frames=round(frames_per_byte * source.source.num_bytes),
            seconds=seconds_per_byte * source.source.num_bytes,
        )
        for source in sources
    }


class ExpectedFrames:
    """How many frames there are in videos of which some have said it: in others, as many per byte.

    headers: of some of the videos, by id; None where a file cannot be opened.
    """

    def __init__(self, videos: Iterable[InputVideo], headers: Mapping[str, VideoHeader | None]) -> None:
        self._num_bytes = {video.video_id: video.source.num_bytes for video in videos}
        self._unknown_bytes = sum(self._num_bytes.values())
        self._known_bytes = self._known_frames = 0
        self._known: dict[str, int] = {}
        for video_id, header in headers.items():
            num_frames = header.num_frames if header else 0
            if num_frames is not None:
                self.learn(video_id, num_frames)

    def learn(self, video_id: str, num_frames: int) -> None:
        """Take the number of frames of a video for known."""
        if video_id not in self._known:
            self._unknown_bytes -= self._num_bytes[video_id]
            self._known_bytes += self._num_bytes[video_id]
        self._known_frames += num_frames - self._known.get(video_id, 0)
        self._known[video_id] = num_frames

    @property
    def num_frames(self) -> float | None:
        """Of all videos; None where none with a byte has said it."""
        if not self._unknown_bytes:
            return self._known_frames
        if not self._known_frames:
            return None
        return self._known_frames * (1 + self._unknown_bytes / max(1, self._known_bytes))


def estimate_encode(
    batches: Sequence[Batch],
    headers: Mapping[str, VideoHeader | None],
    schema: CacheSchema,
    *,
    stacks_per_call: int,
    num_batches_at_once: int,
) -> EncodeEstimate:
    """The size of an encode of `batches` into a cache of `schema`.

    headers: of all their videos or of some, by id; None where a file cannot be opened.
    """
    found = {
        video_id: header or VideoHeader(num_frames=0, seconds=0.0) for video_id, header in headers.items()
    }
    every = fill_in_headers([source for batch in batches for source in batch], found)
    timing = schema.timing
    values_per_latent_frame = schema.latent_dim * schema.latent_height * schema.latent_width
    lengths = [[n for s in batch if (n := every[s.video_id].num_frames)] for batch in batches]
    num_stacks = [sum(map(timing.num_calls, frames)) for frames in lengths]
    num_latent_frames = [sum(map(timing.num_latent_frames, frames)) for frames in lengths]
    # The last call of a batch is padded.
    num_calls = [-(-count // stacks_per_call) for count in num_stacks]
    return EncodeEstimate(
        num_headers=len(headers),
        num_frames=sum(header.num_frames or 0 for header in every.values()),
        seconds=sum(header.seconds or 0.0 for header in every.values()),
        calls_of_batches=tuple(num_calls),
        num_latent_frames=sum(num_latent_frames),
        latent_bytes=round(bytes_on_disk(sum(num_latent_frames) * values_per_latent_frame)),
        # Not compressed there.
        scratch_bytes=NUM_BYTES
        * values_per_latent_frame
        * sum(sorted(num_latent_frames, reverse=True)[:num_batches_at_once]),
        unknown=tuple(video_id for video_id, header in every.items() if header.num_frames is None),
        broken=tuple(sorted(video_id for video_id, header in found.items() if header.num_frames == 0)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeTime:
    """The duration of an encode, and how much of it each process takes to start, and is in the VAE."""

    seconds: float
    start_seconds: float
    vae_seconds: float


def estimate_time(estimate: EncodeEstimate, speed: Speed) -> EncodeTime:
    """How long the encode takes: as long as the slower of reading and the VAE, in each process.

    Before it, the processes start; at the end, they wait for the one that has the most to do. On one core
    reading and the VAE add up.
    """
    reading = estimate.num_frames * speed.frame_seconds / speed.num_processes  # by one reader
    vae = estimate.num_calls * speed.call_seconds / speed.num_processes
    decoding = reading / speed.num_readers
    taken = reading / speed.shared_cores if speed.shared_cores else 0.0  # of the VAE's time
    most = _calls_of_busiest(estimate.calls_of_batches, speed.num_processes)
    work = max(decoding, vae + taken) * most / max(1e-9, estimate.num_calls / speed.num_processes)
    return EncodeTime(
        seconds=speed.start_seconds + work,
        start_seconds=speed.start_seconds,
        vae_seconds=vae,
    )


def _calls_of_busiest(calls_of_batches: Sequence[int], num_processes: int) -> int:
    """The most calls that one of the processes makes: each takes the next batch when it is done with one."""
    made = [0] * num_processes
    for num_calls in calls_of_batches:
        heapq.heapreplace(made, made[0] + num_calls)
    return max(made)
