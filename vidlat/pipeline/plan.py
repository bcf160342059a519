"""What an encode has to do, decided before any pixel is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vidlat.errors import InputError
from vidlat.pipeline.discover import content_hash
from vidlat.store.sources import source_state
from vidlat.types import CachedSource, FailureRecord, VideoSource

MAX_VIDEOS_A_BATCH = 8
BATCHES_A_WORKER = 4

Batch = tuple[VideoSource, ...]

OnHash = Callable[[str, int], None]
"""Told each video whose file was compared with its record by content, and how many there are to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodePlan:
    """Batches to encode, largest videos first, and the videos that need nothing.

    num_done: in the cache already. known_failures: failed before and unchanged since, so not tried again.
    moved: done, but their file was touched, copied or moved since; the cache should know it as it is now.
    vanished: ids of the cache, sorted, that are not among the sources and whose file is gone.
    """

    batches: list[Batch]
    num_done: int
    known_failures: list[FailureRecord]
    moved: list[VideoSource]
    vanished: tuple[str, ...]

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
    checksum: bool = False,
    on_hash: OnHash = lambda *_: None,
) -> EncodePlan:
    """Sources minus records; a file that changed since it was recorded is encoded again.

    Size and time of change tell an unchanged file, which is not read; where the time or the place differs,
    its content does. checksum: trust neither, and read every file that the cache holds.
    Raises InputError where a video of the same id was encoded from another file that still exists.
    """
    todo: list[VideoSource] = []
    known: list[FailureRecord] = []
    doubtful: list[VideoSource] = []
    for source in sources:
        failure = failures.get(source.video_id)
        record = cached.get(source.video_id)
        if failure and not retry_failed and _untouched(source, _file_of(failure)):
            known.append(failure)
        elif record is None:
            todo.append(source)
        elif checksum or not _untouched(source, record):
            doubtful.append(source)
    changed, moved = _compare(doubtful, cached, on_hash)
    todo += changed
    return EncodePlan(
        batches=_batches(todo, num_workers),
        num_done=len(sources) - len(todo) - len(known),
        known_failures=known,
        moved=moved,
        vanished=_vanished(sources, cached),
    )


def _batches(todo: list[VideoSource], num_workers: int) -> list[Batch]:
    # The longest work first: a large video started last would leave the other workers idle.
    todo = sorted(todo, key=lambda source: (-source.num_bytes, source.video_id))
    per_batch = -(-len(todo) // (BATCHES_A_WORKER * num_workers))
    per_batch = max(1, min(MAX_VIDEOS_A_BATCH, per_batch))
    return [tuple(todo[first : first + per_batch]) for first in range(0, len(todo), per_batch)]


def _compare(
    sources: Sequence[VideoSource], cached: Mapping[str, CachedSource], on_hash: OnHash
) -> tuple[list[VideoSource], list[VideoSource]]:
    """Those whose content is not what was encoded, and those that only their place or time tells apart."""
    changed: list[VideoSource] = []
    moved: list[VideoSource] = []
    for source in sources:
        record = cached[source.video_id]
        same = _same_content(source, record)
        on_hash(source.video_id, len(sources))
        if not same:
            _require_same_file(source, record)
            changed.append(source)
        elif not _untouched(source, record):
            moved.append(source)
    return changed, moved


def _vanished(sources: Sequence[VideoSource], cached: Mapping[str, CachedSource]) -> tuple[str, ...]:
    # A cache may be filled from several folders: what this input does not name may well be there.
    others = cached.keys() - {source.video_id for source in sources}
    return tuple(sorted(video_id for video_id in others if _is_gone(cached[video_id])))


def _is_gone(record: CachedSource) -> bool:
    return source_state(record.path, record.num_bytes, record.mtime_ns) == "vanished"


def _file_of(failure: FailureRecord) -> CachedSource:
    return CachedSource(failure.source_path, failure.source_num_bytes, failure.source_mtime_ns, sha256="")


def _untouched(source: VideoSource, record: CachedSource) -> bool:
    now = source.num_bytes, source.mtime_ns, _as_recorded(source)
    return now == (record.num_bytes, record.mtime_ns, record.path)


def _as_recorded(source: VideoSource) -> str:
    """The path of a source as a record states it, see `store.sources.recorded_path`."""
    path = str(source.path)
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def _same_content(source: VideoSource, record: CachedSource) -> bool:
    """Whether a file still holds the recorded bytes."""
    if source.num_bytes != record.num_bytes:
        return False
    try:
        return content_hash(source.path) == record.sha256
    except OSError:
        return False  # the encode will say why


def _require_same_file(source: VideoSource, record: CachedSource) -> None:
    if _as_recorded(source) != record.path and not _is_gone(record):
        raise InputError(
            f"{source.path} would replace video {source.video_id!r}, which was encoded from "
            f"{record.path}; give the folder above both as --input, or another --out"
        )
