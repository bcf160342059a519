"""Encoding videos into a cache: everything is checked and planned first, then run."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidlat.config import ARITHMETIC_VERSIONS, PREPROCESS_VERSION, EncodeConfig, LatentSettings, Part
from vidlat.encode.device import resolve_batch, resolve_device, resolve_precision
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.encode.vae_spec import name_without_path, require_size
from vidlat.encode.weights import licence_of, resolve_weights, times_for
from vidlat.errors import CacheMismatchError, ConfigError, InputError, StoreError, TimingError
from vidlat.paths import is_address, local_path
from vidlat.pipeline.dask_executor import open_dask_executor
from vidlat.pipeline.decode_videos import find_weights_of, require_encoder_of
from vidlat.pipeline.discover import Discovery, OnFiles, discover_videos
from vidlat.pipeline.driver import EncodeProgress, run_encode
from vidlat.pipeline.executor import Executor
from vidlat.pipeline.job import (
    EncodeJob,
    choose_num_workers,
    num_batches_of_worker,
    num_threads_of_worker,
)
from vidlat.pipeline.known_files import NOTHING_KNOWN, KnownFiles
from vidlat.pipeline.plan import EncodePlan, OnHash, plan_encode
from vidlat.pipeline.short_videos import find_short
from vidlat.spelling import did_you_mean
from vidlat.store.metadata import read_schema
from vidlat.store.reader import open_cache
from vidlat.store.records.log import last_sequence
from vidlat.store.schema import (
    CacheSchema,
    CacheSettings,
    default_shard_frames,
    require_same_arithmetic,
    require_same_settings,
)
from vidlat.store.storage.opening import cache_storage, open_storage
from vidlat.store.writing.lease import refuse_if_held
from vidlat.store.writing.opening import create_cache, is_taken, open_writer
from vidlat.store.writing.writer import CacheWriter, OnWait, not_told
from vidlat.types import Annotation, FailureRecord, InputVideo, Source

DEFAULT_VAE = "maisi"
"""Of a new cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEncode:
    """An encode that was checked and planned; nothing is written yet.

    discovery: the videos found, and what was found besides. dropped, short: ids of those that are left out,
    since they were removed by their id, or have too few frames. planned_at: the sequence of the cache's last
    commit when this was planned, 0 where there was no cache.
    """

    out: Path | str
    schema: CacheSchema
    plan: EncodePlan
    job: EncodeJob
    num_workers: int
    scheduler: str | None
    discovery: Discovery
    dropped: tuple[str, ...]
    short: tuple[str, ...]
    planned_at: int

    def run(self, executor: Executor | None = None, on_wait: OnWait = not_told) -> Generator[EncodeProgress]:
        """Encode what is left to do, yielding what happens as it happens.

        The first event comes when the workers have started and the cache is held for writing. Where nothing
        is to be encoded, no worker starts; moved files and new annotations are recorded all the same.
        executor: None for the processes that the settings ask for. on_wait: as for the store's `open_writer`.
        Raises InputError, StoreError, ScratchError or WeightsError; what was committed before stays.
        """
        if not self.plan.num_videos:
            # A part without videos gets a cache all the same: the jobs of an array and merge need not ask.
            if self.plan.restated or not is_taken(self.out):
                with self.open_writer(on_wait):
                    pass
            return
        # The workers first: where none can be had, no cache is left behind.
        own = open_dask_executor(self.scheduler, self.num_workers, self.job.num_batches_per_worker)
        ours = own if executor is None else nullcontext(executor)
        with ours as ready, ready, self.open_writer(on_wait) as writer:
            lease = writer.lease
            yield EncodeProgress(
                taken_over_from=lease.taken_from, has_locks=lease.has_locks, dashboard=ready.dashboard
            )
            yield from run_encode(self.plan, self.job, writer, ready)

    @contextmanager
    def open_writer(self, on_wait: OnWait = not_told) -> Iterator[CacheWriter]:
        """Create the cache if needed, and hold it for writing as long as the block lasts.

        Moved files and new annotations of videos that are done are recorded at once.
        Raises StoreError if another process holds the cache, or has written to it since this was planned.
        """
        if not is_taken(self.out):
            create_cache(self.out, self.schema)
        with open_writer(self.out, "vidlat encode", on_wait) as writer:
            # Another encode may have run since: its work would be repeated, or its cache may differ.
            if writer.schema.cache_id != self.schema.cache_id or writer.last_sequence() != self.planned_at:
                raise StoreError(
                    f"{self.out}: changed while this encode was planned; run the same command again"
                )
            writer.commit_sources(self.plan.restated)
            yield writer


def encode_videos(
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: EncodeConfig,
    *,
    labels: str | Path | None = None,
    retry_failed: bool = False,
    checksum: bool = False,
    restore: Collection[str] = (),
    executor: Executor | None = None,
) -> Generator[EncodeProgress]:
    """Encode videos into the cache at `out`, which is created or added to, yielding what happens.

    settings: must be those of a cache that is there; `settings_for` takes them from it.
    inputs: files, folders, glob patterns or manifests, or addresses in a bucket.
    labels: a table by video id. retry_failed: try videos again that failed before. checksum: compare every
    file's content instead of its size and time. restore: ids of videos to encode though they were dropped.
    executor: None for the processes that `settings` ask for.
    Everything is checked when this is called; see `prepare_encode` and `PreparedEncode.run` for the errors.
    """
    prepared = prepare_encode(
        [str(text) for text in inputs],
        settings,
        out if is_address(out) else local_path(out),
        labels=local_path(labels) if labels else None,
        retry_failed=retry_failed,
        checksum=checksum,
        restore=restore,
    )
    return prepared.run(executor)


def prepare_encode(
    inputs: Sequence[str],
    config: EncodeConfig,
    out: Path | str,
    *,
    retry_failed: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    labels: Path | None = None,
    restore: Collection[str] = (),
    on_hash: OnHash = lambda *_: None,
    on_files: OnFiles = lambda _: None,
) -> PreparedEncode:
    """Find the videos, load the VAE, read the cache at `out` if there is one, and plan what is left to do.

    Writes nothing. A file that a video of the cache came from is not opened again where its size and time are
    the same, except with checksum. retry_failed, checksum, on_hash: as in `plan_encode`. dry_run: another
    process may be writing to the cache. labels, on_files: as in `discover_videos`. restore: ids of videos to
    encode though they were dropped.
    Raises InputError, WeightsError, ConfigError, StoreError or CacheMismatchError.
    """
    known = _read_cache(out, dry_run=dry_run)
    discovery = discover_videos(
        inputs,
        labels=labels,
        ids=config.ids,
        exclude=config.exclude,
        part=Part.from_text(config.part) if config.part else None,
        known=NOTHING_KNOWN if checksum else KnownFiles(known.sources.values()),
        addresses=True,
        on_files=on_files,
    )
    config, vae, vae_path = _look_at_vae(config, known.schema)
    schema = _describe_cache(config, vae, vae_path)
    if known.schema:
        with _naming_an_empty_cache(known):
            _require_same_settings(out, known.schema, schema, config)
        schema = known.schema
    num_workers = config.workers or choose_num_workers(resolve_device(config.device))
    dropped = _left_out(discovery.videos, known.dropped, restore, config)
    fresh = [video for video in discovery.videos if video.video_id not in known.recorded]
    short = find_short(fresh, config.min_frames, config) if config.min_frames > 1 else []
    plan = plan_encode(
        [video for video in discovery.videos if video.video_id not in {*dropped, *short}],
        known.sources,
        known.failures,
        known.annotations,
        num_workers=num_workers * num_batches_of_worker(str(vae.device)),
        retry_failed=retry_failed,
        checksum=checksum,
        on_hash=on_hash,
    )
    return PreparedEncode(
        out=out,
        schema=schema,
        plan=plan,
        job=_describe_job(config, schema, vae, vae_path),
        num_workers=num_workers,
        scheduler=config.scheduler,
        discovery=discovery,
        dropped=tuple(dropped),
        short=tuple(short),
        planned_at=known.sequence,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownCache:
    """What a cache holds before an encode; nothing where there is none yet."""

    schema: CacheSchema | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    failures: Mapping[str, FailureRecord] = field(default_factory=dict)
    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    dropped: Collection[str] = ()
    sequence: int = 0

    @property
    def recorded(self) -> set[str]:
        """Ids of the videos that are in the cache, failed or were dropped."""
        return {*self.sources, *self.failures, *self.dropped}


def _read_cache(out: Path | str, *, dry_run: bool) -> _KnownCache:
    """Read the cache at `out`; raises StoreError for one that cannot be written, or is in use."""
    if is_address(out):  # refused before the VAE loads, where it cannot be written
        open_storage(str(out), write=not dry_run)
    if not is_taken(out):
        return _KnownCache()
    read_schema(cache_storage(out))  # before the VAE loads: refuse what is no cache, or is in use
    if not dry_run and not is_address(out):
        refuse_if_held(local_path(out))
    # Before reading the records: a commit in between is noticed then.
    sequence = last_sequence(cache_storage(out))
    cache = open_cache(out)
    return _KnownCache(
        schema=cache.schema,
        sources=cache.sources(),
        failures=cache.failures(),
        annotations=cache.annotations(),
        dropped=cache.dropped(),
        sequence=sequence,
    )


def _left_out(
    videos: Sequence[InputVideo], dropped: Collection[str], restore: Collection[str], config: EncodeConfig
) -> list[str]:
    """Ids of the videos that were dropped, but for those to restore, each of which must be a video."""
    found = {video.video_id for video in videos}
    if not config.part and (unknown := sorted(set(restore) - found)):
        raise InputError(
            f"--restore {unknown[0]!r}: no video of --input has this id{did_you_mean(unknown[0], dropped)}; "
            "`vidlat ls --dropped` lists what was dropped"
        )
    return sorted(found.intersection(dropped).difference(restore))


def _look_at_vae(config: EncodeConfig, made: CacheSchema | None) -> tuple[EncodeConfig, FrozenVAE, Path]:
    """The settings with the VAE that they mean and the times that suit it, that VAE, and where it is.

    made: the cache that is added to. Raises WeightsError, ConfigError or TimingError.
    """
    name = config.vae or (made.vae_name if made else DEFAULT_VAE)
    vae_path = find_weights_of(made) if made and not config.vae else resolve_weights(name)
    complete = replace(config, vae=name).with_times(times_for(name, vae_path))
    with _naming_times_not_given(config, complete):
        vae = _load_to_look_at(complete, vae_path, resolve_device(config.device))
    if made and not config.vae:
        require_encoder_of(made, vae, vae_path)
    _require_expected(complete, vae)
    return complete, vae, vae_path


def _describe_job(config: EncodeConfig, schema: CacheSchema, vae: FrozenVAE, vae_path: Path) -> EncodeJob:
    return EncodeJob(
        vae=config.vae or schema.vae_name,
        vae_path=vae_path.absolute(),
        vae_hash=vae.weights_hash,
        settings=schema.settings.select(LatentSettings),
        batch=vae.batch,
        device=config.device,
        time_limit_seconds=config.time_limit_seconds,
        cudnn_benchmark=config.cudnn_benchmark,
        num_threads=num_threads_of_worker(),
    )


@contextmanager
def _naming_times_not_given(given: EncodeConfig, config: EncodeConfig) -> Iterator[None]:
    """Let a TimingError name the times that suit the VAE: nobody sees them on the command line."""
    try:
        yield
    except TimingError as error:
        names = [name for name in ("stack", "overlap", "stretch") if getattr(given, name) is None]
        times = [f"--{name} {getattr(config, name)}" for name in names if getattr(config, name) is not None]
        if not times:
            raise
        raise TimingError(
            f"{error}; what was not given is as suits {config.vae}: {' '.join(times)}"
        ) from error


def _load_to_look_at(config: EncodeConfig, vae_path: Path, device: str) -> FrozenVAE:
    """The VAE as the workers will have it, but in the CPU's memory: this process does not compute."""
    precision = config.precision
    if precision == "auto" or config.scheduler is None:
        precision = resolve_precision(precision, device, computes_here=False)
    settings = replace(config.select(LatentSettings), precision=precision)
    return load_vae(vae_path, settings, batch=resolve_batch(config.batch, device), computes_here=False)


def _require_expected(config: EncodeConfig, vae: FrozenVAE) -> None:
    require_size(config.size, vae.space_compression)
    found = {"in_channels": vae.encoder_config["in_channels"], "latent_dim": vae.latent_dim}
    for name, expected in (("in_channels", config.in_channels), ("latent_dim", config.latent_dim)):
        if expected not in (None, found[name]):
            raise ConfigError(f"{name}: got {expected}; the VAE {config.vae} has {found[name]}")


def _describe_cache(config: EncodeConfig, vae: FrozenVAE, vae_path: Path) -> CacheSchema:
    assert config.vae is not None, "found by _look_at_vae"
    side = config.size // vae.space_compression
    return CacheSchema(
        settings=CacheSettings(
            **config.select(LatentSettings).to_dict()
            | {
                "precision": vae.precision,
                "stack": vae.timing.stack,
                "overlap": vae.timing.overlap,
                "stretch": vae.timing.stretch,
            },
            encoder_hash=vae.encoder_hash,
            encoder_config=vae.encoder_config,
            preprocess_version=PREPROCESS_VERSION,
            arithmetic_version=ARITHMETIC_VERSIONS[vae.precision],
        ),
        ids=config.ids,
        vae_name=name_without_path(config.vae) if config.ids == "hash" else config.vae,
        vae_hash=vae.weights_hash,
        vae_licence=licence_of(config.vae, vae_path),
        vae_path="" if config.ids == "hash" else str(vae_path.absolute()),
        time_compression=vae.time_compression,
        space_compression=vae.space_compression,
        latent_dim=vae.latent_dim,
        latent_height=side,
        latent_width=side,
        shard_frames=default_shard_frames(vae.latent_dim, side, side),
    )


@contextmanager
def _naming_an_empty_cache(known: _KnownCache) -> Iterator[None]:
    """Let a CacheMismatchError tell of a cache without a video that it can be removed."""
    try:
        yield
    except CacheMismatchError as error:
        if known.sources or known.dropped:
            raise
        raise CacheMismatchError(
            f"{error}; it holds no video (failed: {len(known.failures):,}), so it can be removed"
        ) from error


def _require_same_settings(
    out: Path | str, found: CacheSchema, asked: CacheSchema, config: EncodeConfig
) -> None:
    """Raise CacheMismatchError where the cache differs; precision `auto` accepts that of the cache."""
    if config.ids != found.ids:
        raise CacheMismatchError(
            f"{out}: made with --ids {found.ids}, you asked {config.ids}: use the same or another --out"
        )
    settings, made = asked.settings, found.settings
    if config.precision == "auto":
        settings = replace(settings, precision=made.precision)
    if settings.precision == made.precision:
        require_same_arithmetic(out, made)
    settings = replace(settings, arithmetic_version=made.arithmetic_version)
    require_same_settings(out, made, settings, (found.vae_name, asked.vae_name))
