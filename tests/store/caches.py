"""Small caches with known content for the tests of the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidlat.store.latents.statistics import latent_statistics
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.schema import CacheSchema, CacheSettings
from vidlat.store.storage.opening import local_cache
from vidlat.store.writing.lease import Lease
from vidlat.store.writing.writer import CacheWriter
from vidlat.types import FailureRecord, LatentPosterior, Source, VideoRecord

SETTINGS = CacheSettings(
    encoder_hash="0123abcd",
    encoder_config={"latent_channels": 2, "num_channels": [8, 16]},
    size=12,
    precision="float32",
    preprocess_version=1,
)

SCHEMA = CacheSchema(
    settings=SETTINGS,
    vae_name="tiny",
    vae_hash="4567cdef",
    vae_licence="Apache-2.0",
    vae_path="tiny.safetensors",
    time_compression=4,
    space_compression=4,
    latent_dim=2,
    latent_height=3,
    latent_width=5,
    chunk_frames=4,
    shard_frames=8,
)


def random_posterior(num_latent_frames: int, seed: int = 0) -> LatentPosterior:
    rng = np.random.default_rng([seed, num_latent_frames])
    shape = (2, num_latent_frames, 3, 5)
    mean = rng.standard_normal(shape).astype(np.float32)
    return LatentPosterior(mean=mean, std=rng.uniform(0.1, 1, shape).astype(np.float32))


def source_of(video_id: str, **changes) -> Source:
    values = {"num_bytes": 1000, "mtime_ns": 1_700_000_000_123_456_789, "sha256": "ab" * 32}
    return Source(**{"path": f"/videos/{video_id}", **values, **changes})


def record_of(video_id: str, start: int, posterior: LatentPosterior, **changes) -> VideoRecord:
    """A record of these latents; `source_...` among the changes are those of its source."""
    num_latent_frames = posterior.mean.shape[1]
    of_source = {name: changes.pop(name) for name in list(changes) if name.startswith("source_")}
    values = {
        "video_id": video_id,
        "start": start,
        "stop": start + num_latent_frames,
        "num_frames": 4 * num_latent_frames,
        "fps": 29.97,
        "pts_seconds": None,
        "source": source_of(video_id, **{name.removeprefix("source_"): v for name, v in of_source.items()}),
        "height": 480,
        "width": 640,
        "latents": latent_statistics(posterior.mean, posterior.std, num_latent_frames),
        "warnings": (),
        "versions": {"torch": "2.13.0", "vidlat": "0.1.0"},
        "device": "cpu",
        "batch": 8,
    }
    return VideoRecord(**values | changes)


def failure_of(
    video_id: str, reason: str = "no frame decodes", kind: str = "unreadable", path: str | None = None
) -> FailureRecord:
    source = Source(path or f"/videos/{video_id}", num_bytes=7, mtime_ns=1)
    return FailureRecord(video_id=video_id, source=source, kind=kind, reason=reason)


class NoLease(Lease):
    """A lease for tests in which no other process uses the cache."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, token="")

    def require_held(self) -> None:
        pass


def writer_of(path: Path, **limits: int) -> CacheWriter:
    """A writer without a `with` block; limits: `max_small_files` and `small_bytes`."""
    writer = CacheWriter(local_cache(path), NoLease(path))
    vars(writer).update(limits)
    return writer


def add_videos(path: Path, videos: dict[str, LatentPosterior], **limits: int) -> list[VideoRecord]:
    """Add one batch: reserve, write and commit."""
    writer = writer_of(path, **limits)
    posteriors = list(videos.values())
    start = writer.reserve(writer.schema.num_shards(frames_of(posteriors)))
    ranges = write_shards(path, start, posteriors)
    records = [
        record_of(video_id, first, posterior)
        for (video_id, posterior), (first, _) in zip(videos.items(), ranges, strict=True)
    ]
    writer.commit(records)
    return records


def frames_of(posteriors: Sequence[LatentPosterior]) -> list[int]:
    return [posterior.mean.shape[1] for posterior in posteriors]
