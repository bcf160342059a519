"""Everything an encode needs, checked before any work starts: videos, VAE, cache, plan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vidlat.config import PREPROCESS_VERSION, EncodeConfig
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.encode.weights import licence_of, resolve_weights
from vidlat.errors import ConfigError
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.plan import EncodePlan, plan_encode
from vidlat.pipeline.run import choose_num_workers
from vidlat.pipeline.task import EncodeJob
from vidlat.store.reader import open_cache
from vidlat.store.schema import CacheSchema, CacheSettings, default_shard_frames, require_same_settings
from vidlat.store.writer import CacheWriter, create_cache, open_writer
from vidlat.types import CachedSource, FailureRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEncode:
    """A plan and the job to run it with; nothing is written yet.

    num_ignored: files among the input that are no video.
    """

    out: Path
    schema: CacheSchema
    plan: EncodePlan
    job: EncodeJob
    num_workers: int
    num_ignored: int

    @contextmanager
    def open_writer(self) -> Iterator[CacheWriter]:
        """Make the cache if it is not there, and hold it for writing as long as the block lasts.

        Raises StoreError if another process holds it.
        """
        if not _holds_anything(self.out):
            create_cache(self.out, self.schema)
        with open_writer(self.out, "vidlat encode") as writer:
            yield writer


def _holds_anything(out: Path) -> bool:
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def prepare_encode(
    inputs: Sequence[str], config: EncodeConfig, out: Path, *, retry_failed: bool = False
) -> PreparedEncode:
    """Find the videos, load the VAE, look at the cache at `out` if there is one, and plan what is left to do.

    Writes nothing. Raises InputError, WeightsError, ShapeError, StoreError or CacheMismatchError.
    """
    discovery = discover_videos(inputs)
    vae_path = resolve_weights(config.vae)
    vae = load_vae(
        vae_path,
        stack=config.stack,
        batch=config.batch,
        device=config.device,
        precision=config.precision,
    )
    _require_expected(config, vae)
    schema = _describe_cache(config, vae, vae_path)
    cached: dict[str, CachedSource] = {}
    failures: dict[str, FailureRecord] = {}
    if _holds_anything(out):
        schema = _require_same_settings(out, schema, config.precision)
        cache = open_cache(out)
        cached, failures = cache.sources(), cache.failures()
    num_workers = config.workers or choose_num_workers(str(vae.device))
    plan = plan_encode(
        discovery.sources,
        cached,
        failures,
        num_workers=num_workers,
        retry_failed=retry_failed,
    )
    job = EncodeJob(
        vae_path=vae_path,
        vae_hash=vae.weights_hash,
        size=config.size,
        fit=config.fit,
        stack=config.stack,
        batch=config.batch,
        device=config.device,
        precision=schema.settings.encode_precision,
        # Of this machine, not of --workers: the number of threads decides the last bit of a float32 sum.
        num_threads=max(1, (os.cpu_count() or 1) // choose_num_workers("cpu")),
    )
    return PreparedEncode(
        out=out,
        schema=schema,
        plan=plan,
        job=job,
        num_workers=num_workers,
        num_ignored=discovery.num_ignored,
    )


def _require_expected(config: EncodeConfig, vae: FrozenVAE) -> None:
    if config.size % vae.compression:
        raise ConfigError(f"size: got {config.size}; expected a multiple of {vae.compression} for this VAE")
    found = {"in_channels": vae.settings["in_channels"], "latent_dim": vae.latent_dim}
    for name, expected in (("in_channels", config.in_channels), ("latent_dim", config.latent_dim)):
        if expected not in (None, found[name]):
            raise ConfigError(f"{name}: got {expected}; the VAE {config.vae} has {found[name]}")


def _describe_cache(config: EncodeConfig, vae: FrozenVAE, vae_path: Path) -> CacheSchema:
    side = config.size // vae.compression
    return CacheSchema(
        settings=CacheSettings(
            vae_hash=vae.weights_hash,
            vae_config=vae.settings,
            stack=config.stack,
            size=config.size,
            fit=config.fit,
            encode_precision=vae.precision,
            preprocess_version=PREPROCESS_VERSION,
        ),
        vae_name=config.vae,
        vae_licence=licence_of(config.vae),
        vae_path=str(vae_path.absolute()),
        time_compression=vae.compression,
        space_compression=vae.compression,
        latent_dim=vae.latent_dim,
        latent_height=side,
        latent_width=side,
        shard_frames=default_shard_frames(vae.latent_dim, side, side),
    )


def _require_same_settings(out: Path, asked: CacheSchema, precision: str) -> CacheSchema:
    """The schema of the cache at `out`; `auto` precision means whatever that cache was made with."""
    found = open_cache(out).schema
    settings = asked.settings
    if precision == "auto":
        settings = replace(settings, encode_precision=found.settings.encode_precision)
    require_same_settings(out, found.settings, settings)
    return found
