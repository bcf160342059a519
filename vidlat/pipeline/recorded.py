"""The files that cached videos were made from, if they are still those."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from vidlat.errors import InputError
from vidlat.pipeline.discover import content_hash
from vidlat.store.repair import Outcome, recorded_sources
from vidlat.store.sources import recorded_path
from vidlat.types import CachedSource, VideoSource


def find_recorded(video_id: str, recorded: CachedSource) -> VideoSource:
    """The source of a cached video, its content proven by size and hash.

    Raises InputError where it is gone, has changed since, or cannot be read.
    """
    path = Path(recorded_path(recorded.path))
    try:
        if not path.exists():
            raise InputError(f"its source {recorded.path} is gone")
        status = path.stat()
        if status.st_size != recorded.num_bytes or content_hash(path) != recorded.sha256:
            raise InputError(f"its source {recorded.path} has changed since it was encoded")
    except OSError as error:
        raise InputError(f"its source {recorded.path} cannot be read ({error.strerror})") from error
    return VideoSource(video_id=video_id, path=path, num_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def find_sources(path: Path, video_ids: Collection[str]) -> tuple[list[VideoSource], list[Outcome]]:
    """The sources of damaged videos of the cache at `path`, and why the others cannot be repaired.

    Raises StoreError for a damaged record file.
    """
    recorded = recorded_sources(path, video_ids)
    sources, outcomes = [], []
    for video_id in sorted(video_ids):
        try:
            if video_id not in recorded:
                raise InputError("its record does not tell its source")
            sources.append(find_recorded(video_id, recorded[video_id]))
        except InputError as error:
            what = (
                f"{error}: put back the file that was encoded, or encode what is there now by "
                "`vidlat encode`, or remove the video by `vidlat prune --drop`"
            )
            outcomes.append(Outcome(where=video_id, state="not repairable", what=what))
    return sources, outcomes
