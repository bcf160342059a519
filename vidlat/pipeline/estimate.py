"""What an encode will take, from the headers of its videos: arithmetic only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidlat.pipeline.plan import Batch
from vidlat.store.schema import CacheSchema
from vidlat.types import VideoHeader, VideoSource

COMPRESSED_SHARE = 0.8
"""Bytes on disk a byte of float16 latents; of ultrasound by the tiny VAE 0.78 (means 0.93, stds 0.60)."""

NO_FRAMES = VideoHeader(num_frames=0, seconds=0.0)
"""Of a file that cannot be opened."""

_STORED_BYTES = 2 * 2  # float16, of mean and of std


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeEstimate:
    """The size of an encode.

    num_headers: videos whose header was read; the others count by their size, as dense as these.
    num_frames, seconds: of the videos whose header states them. num_calls: calls of the VAE.
    latent_bytes: what the cache will grow by. scratch_bytes: what local scratch must hold at a time.
    unknown: ids of the videos whose header states no number of frames. broken: of those that will fail, for
    their file cannot be opened or holds nothing of what is asked for. Both count as nothing.
    """

    num_headers: int
    num_frames: int
    seconds: float
    num_calls: int
    latent_bytes: int
    scratch_bytes: int
    unknown: tuple[str, ...]
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One process at work: seconds to decode and prepare a frame, seconds of one VAE call."""

    frame_seconds: float
    call_seconds: float


def fill_in_headers(
    sources: Sequence[VideoSource], headers: Mapping[str, VideoHeader]
) -> dict[str, VideoHeader]:
    """A header for each source: where none was read, as long as its bytes make it among those that were."""
    read = [source for source in sources if source.video_id in headers]
    num_bytes = max(1, sum(source.num_bytes for source in read))
    frames_a_byte = sum(headers[source.video_id].num_frames or 0 for source in read) / num_bytes
    seconds_a_byte = sum(headers[source.video_id].seconds or 0 for source in read) / num_bytes
    return {
        source.video_id: headers.get(source.video_id)
        or VideoHeader(
            num_frames=round(frames_a_byte * source.num_bytes), seconds=seconds_a_byte * source.num_bytes
        )
        for source in sources
    }


def estimate_encode(
    batches: Sequence[Batch],
    headers: Mapping[str, VideoHeader | None],
    schema: CacheSchema,
    *,
    stacks_a_call: int,
    num_batches_at_once: int,
) -> EncodeEstimate:
    """The size of an encode of `batches` into a cache of `schema`.

    headers: of all their videos or some; None where a file cannot be opened.
    """
    found = {video_id: header or NO_FRAMES for video_id, header in headers.items()}
    every = fill_in_headers([source for batch in batches for source in batch], found)
    stack = schema.settings.stack
    values_a_latent_frame = schema.latent_dim * schema.latent_height * schema.latent_width
    stack_bytes = _STORED_BYTES * values_a_latent_frame * stack // schema.time_compression
    num_stacks = [sum(-(-(every[s.video_id].num_frames or 0) // stack) for s in batch) for batch in batches]
    return EncodeEstimate(
        num_headers=len(headers),
        num_frames=sum(header.num_frames or 0 for header in every.values()),
        seconds=sum(header.seconds or 0.0 for header in every.values()),
        # The last call of a batch is filled up.
        num_calls=sum(-(-count // stacks_a_call) for count in num_stacks),
        latent_bytes=round(sum(num_stacks) * stack_bytes * COMPRESSED_SHARE),
        # Not compressed there.
        scratch_bytes=stack_bytes * sum(sorted(num_stacks, reverse=True)[:num_batches_at_once]),
        unknown=tuple(video_id for video_id, header in every.items() if header.num_frames is None),
        broken=tuple(sorted(video_id for video_id, header in found.items() if header.num_frames == 0)),
    )


def encode_seconds(estimate: EncodeEstimate, speed: Speed, num_processes: int) -> tuple[float, float]:
    """Seconds spent decoding and in the VAE: a process does one after the other, so their sum is the time."""
    decoding = estimate.num_frames * speed.frame_seconds / num_processes
    return decoding, estimate.num_calls * speed.call_seconds / num_processes
