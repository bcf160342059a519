"""What an encode has to do, decided before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidlat.errors import InputError
from vidlat.pipeline.discover import content_hash
from vidlat.types import CachedSource, FailureRecord, VideoSource

MAX_VIDEOS_A_BATCH = 8
BATCHES_A_WORKER = 4

Batch = tuple[VideoSource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodePlan:
    """Batches to encode, largest videos first, and the videos that need nothing.

    num_done: in the cache already. known_failures: failed before and unchanged since, so not tried again.
    """

    batches: list[Batch]
    num_done: int
    known_failures: list[FailureRecord]

    @property
    def num_videos(self) -> int:
        """Videos to encode."""
        return sum(map(len, self.batches))

    @property
    def num_sources(self) -> int:
        """Videos found: done, failed before, or to encode."""
        return self.num_done + len(self.known_failures) + self.num_videos


def plan_encode(
    sources: Sequence[VideoSource],
    cached: Mapping[str, CachedSource],
    failures: Mapping[str, FailureRecord],
    *,
    num_workers: int,
    retry_failed: bool = False,
) -> EncodePlan:
    """Sources minus records; a file that changed since it was recorded is encoded again.

    Size and time of change tell an unchanged file; where the time or the place differs, its content does.
    Raises InputError where a video of the same id was encoded from another file that still exists.
    """
    todo: list[VideoSource] = []
    known: list[FailureRecord] = []
    for source in sources:
        failure = failures.get(source.video_id)
        record = cached.get(source.video_id)
        if failure and not retry_failed and _untouched(source, _file_of(failure)):
            known.append(failure)
        elif record is None:
            todo.append(source)
        elif not _untouched(source, record) and not _same_content(source, record):
            _require_same_file(source, record)
            todo.append(source)
    # The longest work first: a large video started last would leave the other workers idle.
    todo.sort(key=lambda source: (-source.num_bytes, source.video_id))
    per_batch = -(-len(todo) // (BATCHES_A_WORKER * num_workers))
    per_batch = max(1, min(MAX_VIDEOS_A_BATCH, per_batch))
    return EncodePlan(
        batches=[tuple(todo[first : first + per_batch]) for first in range(0, len(todo), per_batch)],
        num_done=len(sources) - len(todo) - len(known),
        known_failures=known,
    )


def _file_of(failure: FailureRecord) -> CachedSource:
    return CachedSource(failure.source_path, failure.source_num_bytes, failure.source_mtime_ns, sha256="")


def _untouched(source: VideoSource, record: CachedSource) -> bool:
    now = str(source.path), source.num_bytes, source.mtime_ns
    return now == (record.path, record.num_bytes, record.mtime_ns)


def _same_content(source: VideoSource, record: CachedSource) -> bool:
    """Whether a file that was touched, copied or moved still holds the recorded bytes."""
    if source.num_bytes != record.num_bytes:
        return False
    try:
        return content_hash(source.path) == record.sha256
    except OSError:
        return False  # the encode will say why


def _require_same_file(source: VideoSource, record: CachedSource) -> None:
    if str(source.path) != record.path and Path(record.path).exists():
        raise InputError(
            f"{source.path} would replace video {source.video_id!r}, which was encoded from "
            f"{record.path}; give the folder above both as --input, or another --out"
        )
