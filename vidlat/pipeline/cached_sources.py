"""Finding the files that cached videos were encoded from, if they still hold the same bytes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from vidlat.errors import InputError
from vidlat.store.object_sources import source_hash, source_now
from vidlat.store.storage.interface import Changed, Missing
from vidlat.store.verify.repair_files import Outcome, recorded_sources
from vidlat.types import InputVideo, Source

_PUT_BACK = (
    "put back the file that was encoded, or encode what is there now by `vidlat encode`, or remove the video "
    "by `vidlat prune --drop`"
)
_DROP = "remove it by `vidlat prune --drop`, and add it again by `vidlat encode`, with its --labels"


def find_cached_source(video_id: str, recorded: Source) -> InputVideo:
    """The source of a cached video, with its content verified by size and hash.

    Raises InputError where it is gone, has changed since, or cannot be read; Unreachable for one in a bucket.
    """
    if not recorded.path:
        raise InputError("the cache does not keep where its source is (--ids hash)")
    try:
        now = source_now(recorded)
        if now.num_bytes != recorded.num_bytes or source_hash(now) != recorded.sha256:
            raise InputError(f"its source {recorded.path} has changed since it was encoded")
    except (FileNotFoundError, NotADirectoryError, Missing) as error:
        raise InputError(f"its source {recorded.path} is gone") from error
    except Changed as error:
        raise InputError(f"its source {recorded.path} is being changed") from error
    except OSError as error:
        raise InputError(f"its source {recorded.path} cannot be read ({error.strerror})") from error
    return InputVideo(video_id=video_id, source=now)


def find_cached_sources(path: Path, video_ids: Collection[str]) -> tuple[list[InputVideo], list[Outcome]]:
    """The sources of damaged videos of the cache at `path`, and why the other videos cannot be repaired.

    Raises StoreError for a damaged record file, Unreachable for sources in a bucket.
    """
    recorded = recorded_sources(path, video_ids)
    sources, outcomes = [], []
    for video_id in sorted(video_ids):
        try:
            if video_id not in recorded:
                raise InputError("its record does not say where its source is")
            sources.append(find_cached_source(video_id, recorded[video_id]))
        except InputError as error:
            is_hidden = video_id in recorded and not recorded[video_id].path
            what = f"{error}: {_DROP if is_hidden else _PUT_BACK}"
            outcomes.append(Outcome(where=video_id, state="not repairable", what=what))
    return sources, outcomes
