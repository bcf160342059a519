"""What an encode has to do, decided before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidlat.types import FailureRecord, VideoRecord, VideoSource

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
    records: Mapping[str, VideoRecord],
    failures: Mapping[str, FailureRecord],
    *,
    num_workers: int,
    retry_failed: bool = False,
) -> EncodePlan:
    """Sources minus records; a video whose size or time of change differs from its record is done anew."""
    todo: list[VideoSource] = []
    known: list[FailureRecord] = []
    for source in sources:
        failure = failures.get(source.video_id)
        if failure and _unchanged(source, failure) and not retry_failed:
            known.append(failure)
        elif source.video_id not in records or not _unchanged(source, records[source.video_id]):
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


def _unchanged(source: VideoSource, record: VideoRecord | FailureRecord) -> bool:
    return (source.num_bytes, source.mtime_ns) == (record.source_num_bytes, record.source_mtime_ns)
