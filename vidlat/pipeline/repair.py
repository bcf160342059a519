"""Encoding damaged videos again, as they were encoded before."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vidlat.config import PREPROCESS_VERSION
from vidlat.errors import StoreError
from vidlat.pipeline.decode import find_weights_of, load_vae_of
from vidlat.pipeline.driver import EncodeProgress
from vidlat.pipeline.plan import EncodePlan, plan_encode
from vidlat.pipeline.task import EncodeJob
from vidlat.pipeline.workers import choose_num_workers, num_threads_of_worker
from vidlat.store.log import RecordLog
from vidlat.store.metadata import RECORDS, read_schema
from vidlat.store.reader import open_cache
from vidlat.store.records import VIDEO_COLUMNS
from vidlat.store.repair import PURPOSE, Outcome
from vidlat.store.writer import CacheWriter, open_writer
from vidlat.types import VideoSource


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRepair:
    """A plan and the job to run it with; nothing is written yet."""

    path: Path
    plan: EncodePlan
    job: EncodeJob
    num_workers: int

    @contextmanager
    def open_writer(self) -> Iterator[CacheWriter]:
        """Hold the cache for writing; raises StoreError if another process does."""
        with open_writer(self.path, PURPOSE) as writer:
            yield writer


def prepare_repair(
    path: Path, sources: Sequence[VideoSource], *, vae: str | None = None, device: str = "auto"
) -> PreparedRepair:
    """Plan to encode `sources`, videos of the cache at `path`, with its own settings and VAE.

    vae: where its VAE is, if not where it was. Raises WeightsError for another VAE, StoreError for a cache
    whose frames this vidlat prepares in another way.
    """
    schema = read_schema(path)
    settings = schema.settings
    if settings.preprocess_version != PREPROCESS_VERSION:
        raise StoreError(
            f"{path}: its videos were prepared as version {settings.preprocess_version} does, this vidlat "
            f"prepares them as version {PREPROCESS_VERSION}: repair it with the vidlat that made it, "
            "or make a new cache"
        )
    batch = _recorded_batch(path, sources)
    loaded = load_vae_of(schema, vae=vae, device=device, batch=batch)
    num_workers = choose_num_workers(str(loaded.device))
    job = EncodeJob(
        vae_path=find_weights_of(schema, vae),
        vae_hash=settings.vae_hash,
        preprocessing=settings.preprocessing,
        stack=settings.stack,
        batch=batch,
        device=device,
        precision=settings.encode_precision,
        keepbits=settings.keepbits,
        num_threads=num_threads_of_worker(),
    )
    annotations = open_cache(path, hold=False).annotations()
    plan = plan_encode(sources, {}, {}, annotations, num_workers=num_workers)
    return PreparedRepair(path=path, plan=plan, job=job, num_workers=num_workers)


def repair_outcomes(event: EncodeProgress) -> Iterator[Outcome]:
    """What an event of the encode means for the videos it tells of."""
    for record in event.records:
        what = f"encoded again from {record.source_path}"
        yield Outcome(where=record.video_id, state="repaired", what=what)
    for failure in event.failures:
        what = f"could not be encoded again: {failure.reason}"
        yield Outcome(where=failure.video_id, state="not repairable", what=what)


def _recorded_batch(path: Path, sources: Sequence[VideoSource]) -> int:
    """Stacks a VAE call, as most of the videos were encoded with: another number may change the last bits."""
    rows = RecordLog(path / RECORDS, VIDEO_COLUMNS).read_with_removed(["video_id", "sequence", "batch"])
    batches = dict(zip(rows["video_id"].to_pylist(), rows["batch"].to_pylist(), strict=True))
    return statistics.mode(batches[source.video_id] or 1 for source in sources)
