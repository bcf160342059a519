"""Repairing a cache: its files where they can be restored, and damaged videos by encoding them again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from vidlat.config import PREPROCESS_VERSION, LatentSettings
from vidlat.encode.device import resolve_device, resolve_precision
from vidlat.errors import StoreError
from vidlat.pipeline.cached_sources import find_cached_sources
from vidlat.pipeline.dask_executor import open_dask_executor
from vidlat.pipeline.decode_videos import find_weights_of, load_vae_of
from vidlat.pipeline.driver import EncodeProgress, run_encode
from vidlat.pipeline.executor import Executor
from vidlat.pipeline.job import EncodeJob, choose_num_workers, num_threads_of_worker
from vidlat.pipeline.plan import plan_encode
from vidlat.store.metadata import read_schema
from vidlat.store.reader import open_cache
from vidlat.store.records.log import read_records
from vidlat.store.schema import require_same_arithmetic
from vidlat.store.storage.opening import local_cache, require_folder
from vidlat.store.verify.cache import verify_cache
from vidlat.store.verify.problem import Problem
from vidlat.store.verify.repair_files import PURPOSE, Outcome, remove_leftovers, repair_description
from vidlat.store.writing.lease import refuse_if_held
from vidlat.store.writing.opening import open_writer
from vidlat.types import InputVideo

OnVideo = Callable[[str, int], None]
"""Called for each video that is verified, with its id and the number of videos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairProgress:
    """What happened: problems dealt with, frames encoded.

    num_to_encode: videos about to be encoded again. problems_left: in the last event, what is still wrong.
    """

    outcomes: tuple[Outcome, ...] = ()
    num_to_encode: int = 0
    num_frames: int = 0
    problems_left: tuple[Problem, ...] = ()


def repair_cache(
    path: str | Path,
    *,
    vae: str | None = None,
    device: str = "auto",
    executor: Executor | None = None,
    problems: Sequence[Problem] | None = None,
    on_video: OnVideo = lambda *_: None,
) -> Generator[RepairProgress]:
    """Repair what can be repaired, yielding what happens as it happens; nothing where nothing is wrong.

    First the files of the cache are restored and leftovers removed, then damaged videos are encoded again
    with the cache's own settings and VAE, then what was damaged is verified.
    vae: where the VAE is, if not where it was. executor: None for processes on this machine.
    problems: what `verify_cache` found, if it was called before.
    Raises StoreError if the cache cannot be written or was made by another version of the preprocessing or
    of the arithmetic, and WeightsError for another VAE.
    """
    path = require_folder(path, "repair")
    if problems is None:
        refuse_if_held(path)  # before the long reading
        problems = list(verify_cache(path, on_video))
    if not problems:
        return
    suspects = _videos_of(problems)
    outcomes = repair_description(path)
    if any(outcome.state != "not repairable" for outcome in outcomes):
        # What could not be read before can be now, and what seemed damaged may not be.
        found = list(verify_cache(path, on_video))
        suspects |= _videos_of(found)
    else:
        found = list(problems)
    sources: list[InputVideo] = []
    unrepairable: list[Outcome] = []
    if all(outcome.state != "not repairable" for outcome in outcomes):
        sources, unrepairable = find_cached_sources(path, _videos_of(found))
    leftovers = [problem.where for problem in problems if problem.kind == "leftover"]
    outcomes += [*remove_leftovers(path, leftovers), *unrepairable]
    yield RepairProgress(outcomes=tuple(outcomes), num_to_encode=len(sources))
    if sources:
        yield from _encode_again(path, sources, vae, device, executor)
    yield RepairProgress(problems_left=tuple(verify_cache(path, on_video, only=suspects)))


def _videos_of(problems: Sequence[Problem]) -> set[str]:
    return {problem.where for problem in problems if problem.is_video}


def _encode_again(
    path: Path, sources: Sequence[InputVideo], vae: str | None, device: str, executor: Executor | None
) -> Iterator[RepairProgress]:
    job = _describe_job(path, sources, vae, device)
    num_workers = choose_num_workers(resolve_device(device))
    annotations = open_cache(path, hold=False).annotations()
    num_at_once = num_workers * job.num_batches_per_worker
    plan = plan_encode(sources, {}, {}, annotations, num_workers=num_at_once)
    own = open_dask_executor(None, num_workers, job.num_batches_per_worker)
    opening = own if executor is None else nullcontext(executor)
    with opening as ready, ready, open_writer(path, PURPOSE) as writer:
        for event in run_encode(plan, job, writer, ready):
            yield RepairProgress(outcomes=tuple(_outcomes_of(event)), num_frames=event.num_frames)


def _describe_job(path: Path, sources: Sequence[InputVideo], vae: str | None, device: str) -> EncodeJob:
    """The job that encoded the videos before; raises WeightsError or StoreError where it cannot be had."""
    schema = read_schema(local_cache(path))
    settings = schema.settings
    if settings.preprocess_version != PREPROCESS_VERSION:
        raise StoreError(
            f"{path}: its videos were prepared as version {settings.preprocess_version} does, this vidlat "
            f"prepares them as version {PREPROCESS_VERSION}: repair it with the vidlat that made it, "
            "or make a new cache"
        )
    require_same_arithmetic(path, settings)
    # Refuses one that the device lacks.
    resolve_precision(settings.precision, resolve_device(device), computes_here=False)
    batch = _recorded_batch(path, sources)
    found = load_vae_of(schema, vae=vae, computes_here=False)  # refuses another encoder before workers start
    return EncodeJob(
        vae=vae or schema.vae_name,
        vae_path=find_weights_of(schema, vae),
        vae_hash=found.weights_hash,
        settings=settings.select(LatentSettings),
        batch=batch,
        device=device,
        num_threads=num_threads_of_worker(),
    )


def _outcomes_of(event: EncodeProgress) -> Iterator[Outcome]:
    for record in event.records:
        what = f"encoded again from {record.source.path}"
        yield Outcome(where=record.video_id, state="repaired", what=what)
    for failure in event.failures:
        what = f"could not be encoded again: {failure.reason}"
        yield Outcome(where=failure.video_id, state="not repairable", what=what)


def _recorded_batch(path: Path, sources: Sequence[InputVideo]) -> int:
    """The most frequent number of stacks per VAE call; another number may change the last bits."""
    rows = read_records(local_cache(path)).videos.read_with_removed(["video_id", "batch"])
    batches = dict(zip(rows["video_id"].to_pylist(), rows["batch"].to_pylist(), strict=True))
    return statistics.mode(batches[source.video_id] or 1 for source in sources)
