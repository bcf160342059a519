"""A cache of random latents, as `vidlat encode` of a VAE like MAISI would write it, for other benchmarks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidlat.config import PREPROCESS_VERSION
from vidlat.store.latents.statistics import latent_statistics
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.reader import LatentCache, open_cache
from vidlat.store.schema import CacheSchema, CacheSettings, default_shard_frames
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.types import Annotation, LatentPosterior, Source, VideoRecord


def make_random_cache(
    path: Path, *, num_videos: int, length: int, side: int, classes: Sequence[str] = ()
) -> LatentCache:
    """Videos 000, 001, ... of `length` latent frames, each (4, side, side): means normal, stds in [0, 1].

    classes: values of their label `view`, in turn.
    """
    schema = CacheSchema(
        settings=CacheSettings(
            encoder_hash="none", encoder_config={}, stack=4, size=4 * side, fit="crop",
            precision="float32", preprocess_version=PREPROCESS_VERSION,
        ),
        vae_name="none", vae_hash="none", vae_licence="none", vae_path="",
        time_compression=4, space_compression=4, latent_dim=4, latent_height=side, latent_width=side,
        shard_frames=default_shard_frames(4, side, side),
    )  # fmt: skip
    create_cache(path, schema)
    rng, shape = np.random.default_rng(0), (4, length, side, side)
    videos = [
        LatentPosterior(
            mean=rng.standard_normal(shape).astype(np.float16),
            std=rng.random(shape).astype(np.float16),
        )
        for _ in range(num_videos)
    ]
    views = [{"view": classes[n % len(classes)]} if classes else {} for n in range(num_videos)]
    with open_writer(path, "benchmark") as writer:
        start = writer.reserve(schema.num_shards([length] * num_videos))
        ranges = write_shards(path, start, videos)
        writer.commit(
            [
                _record(f"{n:03}", *ranges[n], video, Annotation(labels=views[n]))
                for n, video in enumerate(videos)
            ]
        )
    return open_cache(path)


def _record(
    video_id: str, start: int, stop: int, latents: LatentPosterior, annotation: Annotation
) -> VideoRecord:
    length, side = latents.mean.shape[1], latents.mean.shape[2]
    return VideoRecord(
        video_id=video_id, start=start, stop=stop, num_frames=4 * length, fps=25.0, pts_seconds=None,
        source=Source("", 0, 0), height=4 * side, width=4 * side, annotation=annotation,
        latents=latent_statistics(latents.mean, latents.std, length),
        warnings=(), versions={}, device="cpu", batch=1,
    )  # fmt: skip
