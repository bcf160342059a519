"""What an encode has to do, decided before any video is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from vidlat.errors import InputError
from vidlat.store.sources import content_hash, recorded_place, source_state
from vidlat.types import Annotation, CachedSource, FailureRecord, VideoSource

MAX_VIDEOS_PER_BATCH = 64
MAX_BYTES_PER_BATCH = 4_000_000
"""Of several files: about ten seconds of video, so that a kill loses little. Tiny files share the overhead of
a batch, about 50 ms."""

BATCHES_PER_WORKER = 8
"""At least, if there are enough videos: at the end, processes wait for the last batch of the others."""

Batch = tuple[VideoSource, ...]

OnHash = Callable[[str, int], None]
"""Called for each file that was compared by content, with the video's id and the number of such files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodePlan:
    """Batches to encode, largest videos first, and the videos that need no encoding.

    num_done: in the cache already. known_failures: failed before and unchanged since, so not tried again.
    moved: done, but their file was touched, copied or moved since. annotated: done, but their annotation has
    changed. The records of both are to be updated.
    vanished: sorted ids of cached videos that are not among the sources and whose file is gone.
    """

    batches: list[Batch]
    num_done: int
    known_failures: list[FailureRecord]
    moved: list[VideoSource]
    annotated: list[VideoSource]
    vanished: tuple[str, ...]

    @property
    def restated(self) -> list[VideoSource]:
        """Videos that are done and whose records are to be updated."""
        annotated = {source.video_id for source in self.annotated}
        return [*self.annotated, *(source for source in self.moved if source.video_id not in annotated)]

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
    annotations: Mapping[str, Annotation] = MappingProxyType({}),
    *,
    num_workers: int,
    retry_failed: bool = False,
    checksum: bool = False,
    on_hash: OnHash = lambda *_: None,
) -> EncodePlan:
    """Plan to encode the sources that have no record, or have changed since they were recorded.

    A file with the recorded path, size and modification time is unchanged. Where only the path or the time
    differs, its content is compared. checksum: compare the content of every recorded file.
    annotations: of the videos in the cache; a video that is encoded again keeps its own unless its source has
    one. retry_failed: also encode what failed before.
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
    todo = [_keep_annotation(source, annotations) for source in [*todo, *changed]]
    undone = {source.video_id for source in todo}
    return EncodePlan(
        batches=_batches(todo, num_workers),
        num_done=len(sources) - len(todo) - len(known),
        known_failures=known,
        moved=moved,
        annotated=[
            source
            for source in sources
            if source.video_id in cached
            and source.video_id not in undone
            and source.annotation not in (None, annotations.get(source.video_id, Annotation()))
        ],
        vanished=_vanished(sources, cached),
    )


def _keep_annotation(source: VideoSource, annotations: Mapping[str, Annotation]) -> VideoSource:
    known = annotations.get(source.video_id)
    return source if source.annotation or known is None else replace(source, annotation=known)


def _batches(todo: list[VideoSource], num_workers: int) -> list[Batch]:
    # Large videos first: one that starts last would leave the other workers idle.
    todo = sorted(todo, key=lambda source: (-source.num_bytes, source.video_id))
    most_videos = min(MAX_VIDEOS_PER_BATCH, max(1, len(todo) // (BATCHES_PER_WORKER * num_workers)))
    batches: list[list[VideoSource]] = []
    num_bytes = 0
    for source in todo:
        num_bytes += source.num_bytes
        if not batches or len(batches[-1]) == most_videos or num_bytes > MAX_BYTES_PER_BATCH:
            batches.append([])
            num_bytes = source.num_bytes
        batches[-1].append(source)
    return [tuple(batch) for batch in batches]


def _compare(
    sources: Sequence[VideoSource], cached: Mapping[str, CachedSource], on_hash: OnHash
) -> tuple[list[VideoSource], list[VideoSource]]:
    """Sources whose content has changed, and sources where only the path or the time has."""
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
    # A cache may be filled from several folders: videos of the others are not gone.
    others = cached.keys() - {source.video_id for source in sources}
    return tuple(sorted(video_id for video_id in others if _is_gone(cached[video_id])))


def _is_gone(record: CachedSource) -> bool:
    return source_state(record.path, record.num_bytes, record.mtime_ns, record.selection) == "vanished"


def _file_of(failure: FailureRecord) -> CachedSource:
    return CachedSource(
        path=failure.source_path,
        num_bytes=failure.source_num_bytes,
        mtime_ns=failure.source_mtime_ns,
        sha256="",
        selection=failure.source_selection,
    )


def _untouched(source: VideoSource, record: CachedSource) -> bool:
    path, selection = recorded_place(source)
    now = source.num_bytes, source.mtime_ns, path, selection
    return now == (record.num_bytes, record.mtime_ns, record.path, record.selection)


def _same_content(source: VideoSource, record: CachedSource) -> bool:
    """Whether a file still holds the recorded bytes, and the same part of them is selected."""
    _, selection = recorded_place(source)
    if (source.num_bytes, selection) != (record.num_bytes, record.selection):
        return False
    try:
        return content_hash(source.path, source.selection.files) == record.sha256
    except OSError:
        return False  # the encode will report why


def _require_same_file(source: VideoSource, record: CachedSource) -> None:
    if recorded_place(source)[0] != record.path and not _is_gone(record):
        raise InputError(
            f"{source.path} would replace video {source.video_id!r}, which was encoded from "
            f"{record.path}; give the folder above both as --input, or another --out"
        )
