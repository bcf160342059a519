"""Real caches of random latents, and a network of a few hundred weights."""

import hashlib
import math
import zlib

import numpy as np
import torch
from torch import nn

from vidlat.store.latents.statistics import latent_statistics
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.reader import open_cache
from vidlat.store.schema import CacheSchema, CacheSettings
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.types import LatentPosterior, Selection, Source, VideoRecord

TIME_COMPRESSION = 4


def random_posterior(video_id, num_latent_frames, height=4, width=4):
    random = np.random.default_rng(zlib.crc32(video_id.encode()))
    shape = (2, num_latent_frames, height, width)
    mean = random.normal(size=shape) * 2 + np.array([1.0, -3.0])[:, None, None, None]
    return mean.astype(np.float16), random.uniform(0.05, 0.3, size=shape).astype(np.float16)


def whole_file(path, **selection):
    """A source of its own content, or a selection of it."""
    sha256 = hashlib.sha256(path.encode()).hexdigest()
    return Source(path, num_bytes=1, mtime_ns=1, sha256=sha256, selection=Selection(**selection))


class CacheMaker:
    """Makes a cache at `path` and adds videos to it: {video_id: number of frames}."""

    def __init__(
        self,
        path,
        stack=4,
        encoder_hash="a" * 64,
        latent_dim=2,
        latent_height=4,
        latent_width=4,
        ids="path",
        **times,
    ):
        self.path = path
        settings = CacheSettings(
            encoder_hash=encoder_hash,
            encoder_config={},
            stack=stack,
            **times,
            size=16,
            fit="crop",
            precision="float32",
            preprocess_version=1,
        )
        self.schema = CacheSchema(
            settings=settings,
            vae_name="test",
            vae_hash="c" * 64,
            vae_licence="none",
            vae_path="vae.safetensors",
            time_compression=TIME_COMPRESSION,
            space_compression=4,
            latent_dim=latent_dim,
            latent_height=latent_height,
            latent_width=latent_width,
            shard_frames=8,
            ids=ids,
        )
        create_cache(path, self.schema)

    def add(self, videos, posterior=random_posterior, fps=30.0, sources=None):
        """Commit videos and open the cache anew. sources: by video_id; the others are a file each."""
        posteriors = {
            video_id: LatentPosterior(
                **dict(zip(("mean", "std"), posterior(video_id, self.num_latent(num_frames)), strict=True))
            )
            for video_id, num_frames in videos.items()
        }
        lengths = [p.mean.shape[1] for p in posteriors.values()]
        with open_writer(self.path, "test") as writer:
            start = writer.reserve(writer.schema.num_shards(lengths))
            ranges = write_shards(self.path, start, list(posteriors.values()))
            records = [
                self._record(
                    video_id,
                    videos[video_id],
                    posteriors[video_id],
                    *span,
                    fps,
                    (sources or {}).get(video_id),
                    self.schema.timing.num_unpadded(videos[video_id]),
                )
                for video_id, span in zip(videos, ranges, strict=True)
            ]
            writer.commit(records)
        return open_cache(self.path)

    def num_latent(self, num_frames):
        return self.schema.timing.num_latent_frames(num_frames)

    @staticmethod
    def _record(video_id, num_frames, posterior, start, stop, fps, source=None, num_unpadded=1):
        return VideoRecord(
            video_id=video_id,
            start=start,
            stop=stop,
            num_frames=num_frames,
            fps=fps,
            pts_seconds=None,
            source=source or whole_file(video_id),
            height=16,
            width=16,
            latents=latent_statistics(posterior.mean, posterior.std, num_unpadded),
            warnings=(),
            versions={},
            device="cpu",
            batch=8,
        )


class SmallNetwork(nn.Module):
    """One convolution and a timestep: enough to learn something, in a millisecond."""

    def __init__(self, latent_dim, in_channels=None, num_features=0, takes_span=False):
        super().__init__()
        self.mix = nn.Conv3d(in_channels or latent_dim, latent_dim, 3, padding=1)
        self.shift = nn.Linear(1, latent_dim)
        self.condition = nn.Linear(num_features, latent_dim, bias=False) if num_features else None
        if self.condition is not None:
            nn.init.zeros_(self.condition.weight)
        self.register_buffer("calls", torch.zeros(()))
        if takes_span:
            self.embedding = nn.ModuleDict({"span": nn.Linear(1, latent_dim)})  # as in a U-Net

    def forward(self, latents, timestep, features=None, span=None):
        prediction = self.mix(latents) + self.shift(timestep[:, None])[:, :, None, None, None]
        if span is not None:
            prediction = prediction * (1 + self.embedding["span"](span[:, None])[:, :, None, None, None])
        if self.condition is not None:
            prediction = prediction + self.condition(features)[:, :, None, None, None]
        return prediction


class FailingNetwork(SmallNetwork):
    """Not finite at some of its calls in training, counted from 1: in the loss, or only in the gradient."""

    def __init__(self, latent_dim, calls, where):
        super().__init__(latent_dim)
        self.failing_calls, self.where = calls, where

    def forward(self, latents, timestep, features=None):
        prediction = super().forward(latents, timestep, features)
        self.calls += self.training
        if not self.training or int(self.calls) not in self.failing_calls:
            return prediction
        return prediction * math.nan if self.where == "loss" else prediction + (0 * prediction).sqrt()


def build_failing(*calls, where="loss"):
    return lambda network, preset, latent_dim, **_: FailingNetwork(latent_dim, calls, where)


def build_small(
    network, preset, latent_dim, *, num_features=0, takes_first_frame=False, takes_span=False, **_
):
    in_channels = 2 * latent_dim + 1 if takes_first_frame else latent_dim
    return SmallNetwork(latent_dim, in_channels, num_features, takes_span)
