"""Failure records: why a video is not in the cache, without names that are to be hidden."""

from __future__ import annotations

import re
import traceback
from dataclasses import replace

from vidlat.errors import VidlatError
from vidlat.store.sources import recorded_place
from vidlat.types import FailureRecord, VideoSource


def failure_of(source: VideoSource, kind: str, reason: str) -> FailureRecord:
    """The record of a video that will not be in the cache."""
    path, selection = recorded_place(source)
    return FailureRecord(
        video_id=source.video_id,
        source_path=path,
        source_selection=selection,
        source_num_bytes=source.num_bytes,
        source_mtime_ns=source.mtime_ns,
        kind=kind,
        reason=without_names(source, reason),
    )


def failure_from(source: VideoSource, kind: str, error: BaseException) -> FailureRecord:
    """The record of a video that an error stopped, with a traceback unless vidlat itself raised it."""
    failure = failure_of(source, kind, " ".join(str(error).split()) or type(error).__name__)
    if isinstance(error, VidlatError) or source.hides_names:
        return failure
    return replace(failure, traceback="".join(traceback.format_exception(error)))


def without_names(source: VideoSource, text: str) -> str:
    """A text about a source; names of its files and folders are left out if they are to be hidden."""
    if not source.hides_names:
        return text
    for name in (str(source.path), *source.selection.files, source.path.name):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "...", text)
    return text
