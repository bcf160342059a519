"""What an encode has to do, decided before any video is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from vidlat.errors import InputError
from vidlat.store.object_sources import source_hash
from vidlat.store.sources import source_state
from vidlat.store.storage.interface import Changed, Missing
from vidlat.types import Annotation, FailureRecord, InputVideo, Source

MAX_VIDEOS_PER_BATCH = 64
MAX_BYTES_PER_BATCH = 4_000_000
"""Of several files: about ten seconds of video, so that a kill loses little. Tiny files share the overhead of
a batch, about 50 ms."""

BATCHES_PER_WORKER = 8
"""At least, if there are enough videos: at the end, processes wait for the last batch of the others."""

Batch = tuple[InputVideo, ...]

OnHash = Callable[[str, int], None]
"""Called for each file that was compared by content, with the video's id and the number of such files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodePlan:
    """Batches to encode, largest videos first, and the videos that need no encoding.

    num_done: in the cache already. known_failures: failed before and unchanged since, so not tried again.
    moved: done, but their file was touched, copied or moved since. annotated: done, but their annotation has
    changed. The records of both are to be updated. unlabelled: sorted ids of the videos to encode that the
    cache does not hold and the input has no annotation for, where videos of the cache have one.
    vanished: sorted ids of cached videos that are not among the sources and whose file is gone.
    """

    batches: list[Batch]
    num_done: int
    known_failures: list[FailureRecord]
    moved: list[InputVideo]
    annotated: list[InputVideo]
    unlabelled: tuple[str, ...]
    vanished: tuple[str, ...]

    @property
    def restated(self) -> list[InputVideo]:
        """Videos that are done and whose records are to be updated."""
        annotated = {video.video_id for video in self.annotated}
        return [*self.annotated, *(video for video in self.moved if video.video_id not in annotated)]

    @property
    def videos(self) -> list[InputVideo]:
        """Videos to encode, largest first."""
        return [video for batch in self.batches for video in batch]

    @property
    def num_videos(self) -> int:
        """Videos to encode."""
        return sum(map(len, self.batches))

    @property
    def num_sources(self) -> int:
        """Videos found: done, failed before, or to encode."""
        return self.num_done + len(self.known_failures) + self.num_videos


def plan_encode(
    videos: Sequence[InputVideo],
    cached: Mapping[str, Source],
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
    num_workers: how many batches are worked on at once.
    annotations: of the videos in the cache; a video that is encoded again keeps its own unless its source has
    one. retry_failed: also encode what failed before.
    Raises InputError where a video of the same id was encoded from another file that still exists.
    """
    todo: list[InputVideo] = []
    known: list[FailureRecord] = []
    doubtful: list[InputVideo] = []
    for video in videos:
        failure, recorded = failures.get(video.video_id), cached.get(video.video_id)
        if failure and not retry_failed and _is_untouched(video, failure.source):
            known.append(failure)
        elif recorded is None:
            todo.append(video)
        elif checksum or not _is_untouched(video, recorded):
            doubtful.append(video)
    changed, moved = _compare(doubtful, cached, on_hash)
    todo = [
        video if video.annotation else replace(video, annotation=annotations.get(video.video_id))
        for video in [*todo, *changed]
    ]
    undone = {video.video_id for video in todo}
    return EncodePlan(
        batches=_batches(todo, num_workers),
        num_done=len(videos) - len(todo) - len(known),
        known_failures=known,
        moved=moved,
        annotated=[
            video
            for video in videos
            if video.video_id in cached
            and video.video_id not in undone
            and video.annotation not in (None, annotations.get(video.video_id, Annotation()))
        ],
        unlabelled=_unlabelled(todo, cached, annotations),
        vanished=_vanished(videos, cached),
    )


def _batches(todo: list[InputVideo], num_workers: int) -> list[Batch]:
    # Large videos first: one that starts last would leave the other workers idle.
    todo = sorted(todo, key=lambda video: (-video.source.num_bytes, video.video_id))
    most_videos = min(MAX_VIDEOS_PER_BATCH, max(1, len(todo) // (BATCHES_PER_WORKER * num_workers)))
    batches: list[list[InputVideo]] = []
    num_bytes = 0
    for video in todo:
        num_bytes += video.source.num_bytes
        if not batches or len(batches[-1]) == most_videos or num_bytes > MAX_BYTES_PER_BATCH:
            batches.append([])
            num_bytes = video.source.num_bytes
        batches[-1].append(video)
    return [tuple(batch) for batch in batches]


def _compare(
    videos: Sequence[InputVideo], cached: Mapping[str, Source], on_hash: OnHash
) -> tuple[list[InputVideo], list[InputVideo]]:
    """The videos whose content changed, and those that differ in place or time alone."""
    changed: list[InputVideo] = []
    moved: list[InputVideo] = []
    for video in videos:
        recorded = cached[video.video_id]
        is_same = _has_same_content(video, recorded)
        on_hash(video.video_id, len(videos))
        if not is_same:
            _require_same_file(video, recorded)
            changed.append(video)
        elif not _is_untouched(video, recorded):
            moved.append(video)
    return changed, moved


def _unlabelled(
    todo: Sequence[InputVideo], cached: Mapping[str, Source], annotations: Mapping[str, Annotation]
) -> tuple[str, ...]:
    new = (video for video in todo if video.video_id not in cached)
    nothing = (None, Annotation())
    return (
        tuple(sorted(video.video_id for video in new if video.annotation in nothing)) if annotations else ()
    )


def _vanished(videos: Sequence[InputVideo], cached: Mapping[str, Source]) -> tuple[str, ...]:
    # A cache may be filled from several folders: a video outside this input may well exist.
    others = cached.keys() - {video.video_id for video in videos}
    return tuple(sorted(video_id for video_id in others if source_state(cached[video_id]) == "vanished"))


def _is_untouched(video: InputVideo, recorded: Source) -> bool:
    return video.recorded_source == recorded._replace(sha256=video.source.sha256)


def _has_same_content(video: InputVideo, recorded: Source) -> bool:
    """Whether the file still holds the recorded bytes, and the same part of them is selected."""
    now = video.recorded_source
    if (now.num_bytes, now.selection) != (recorded.num_bytes, recorded.selection):
        return False
    try:
        return source_hash(video.source) == recorded.sha256
    except (OSError, Missing, Changed):
        return False  # the encode will report why


def _require_same_file(video: InputVideo, recorded: Source) -> None:
    if video.recorded_source.path != recorded.path and source_state(recorded) != "vanished":
        raise InputError(
            f"{video.source.path} would replace video {video.video_id!r}, which was encoded from "
            f"{recorded.path}; give the folder above both as --input, or another --out"
        )
