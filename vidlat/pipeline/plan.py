"""What an encode has to do, decided before any pixel is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from vidlat.errors import InputError
from vidlat.store.sources import content_hash, recorded_place, source_state
from vidlat.types import Annotation, CachedSource, FailureRecord, VideoSource

MAX_VIDEOS_A_BATCH = 64
MAX_BYTES_A_BATCH = 4_000_000
"""Of several files: some ten seconds of video, so that a kill loses little. What a batch costs beside its
frames, some 50 ms, is shared by many files where they are tiny."""

BATCHES_A_WORKER = 8
"""At least, where there are so many videos: at the end a process waits for the others' last batch."""

Batch = tuple[VideoSource, ...]

OnHash = Callable[[str, int], None]
"""Told each video whose file was compared with its record by content, and how many there are to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodePlan:
    """Batches to encode, largest videos first, and the videos that need nothing.

    num_done: in the cache already. known_failures: failed before and unchanged since, so not tried again.
    moved: done, but their file was touched, copied or moved since. annotated: done, but what people tell of
    them has changed. The cache should know both as they are now.
    vanished: ids of the cache, sorted, that are not among the sources and whose file is gone.
    """

    batches: list[Batch]
    num_done: int
    known_failures: list[FailureRecord]
    moved: list[VideoSource]
    annotated: list[VideoSource]
    vanished: tuple[str, ...]

    @property
    def restated(self) -> list[VideoSource]:
        """Videos that are done and of which the cache should know more than it does."""
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
    """Sources minus records; a file that changed since it was recorded is encoded again.

    Size and time of change tell an unchanged file, which is not read; where the time or the place differs,
    its content does. annotations: of the videos in the cache; one that is encoded again keeps its own where
    nobody tells another. checksum: trust neither, and read every file that the cache holds.
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
    # The longest work first: a large video started last would leave the other workers idle.
    todo = sorted(todo, key=lambda source: (-source.num_bytes, source.video_id))
    most_videos = min(MAX_VIDEOS_A_BATCH, max(1, len(todo) // (BATCHES_A_WORKER * num_workers)))
    batches: list[list[VideoSource]] = []
    num_bytes = 0
    for source in todo:
        num_bytes += source.num_bytes
        if not batches or len(batches[-1]) == most_videos or num_bytes > MAX_BYTES_A_BATCH:
            batches.append([])
            num_bytes = source.num_bytes
        batches[-1].append(source)
    return [tuple(batch) for batch in batches]


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
    """Whether a file still holds the recorded bytes, and the same of them are meant."""
    _, selection = recorded_place(source)
    if (source.num_bytes, selection) != (record.num_bytes, record.selection):
        return False
    try:
        return content_hash(source.path, source.selection.files) == record.sha256
    except OSError:
        return False  # the encode will say why


def _require_same_file(source: VideoSource, record: CachedSource) -> None:
    if recorded_place(source)[0] != record.path and not _is_gone(record):
        raise InputError(
            f"{source.path} would replace video {source.video_id!r}, which was encoded from "
            f"{record.path}; give the folder above both as --input, or another --out"
        )
