"""Failure records: why a video is not in the cache, without names that are to be hidden."""

from __future__ import annotations

import re
import traceback
from dataclasses import replace
from pathlib import Path

from vidlat.errors import VidlatError, one_line
from vidlat.pipeline.deadline import TIME_LIMIT
from vidlat.types import FailureRecord, InputVideo


def failure_of(video: InputVideo, kind: str, reason: str) -> FailureRecord:
    """The record of a video that will not be in the cache."""
    return FailureRecord(
        video_id=video.video_id,
        source=video.recorded_source,
        kind=kind,
        reason=without_names(video, reason),
    )


def hang_failure(video: InputVideo, limit_seconds: float, num_frames: int) -> FailureRecord:
    """The record of a video whose decoder did not return after `num_frames` frames."""
    reason = (
        f"its decoder did not come back within the {limit_seconds:g} seconds of --time-limit-seconds, after "
        f"{num_frames} frames; its process was ended"
    )
    return failure_of(video, TIME_LIMIT, reason)


def failure_from(video: InputVideo, kind: str, error: BaseException) -> FailureRecord:
    """The record of a video that an error stopped, with a traceback unless vidlat itself raised it."""
    failure = failure_of(video, kind, one_line(error))
    if isinstance(error, VidlatError) or video.hides_names:
        return failure
    return replace(failure, traceback=without_names(video, "".join(traceback.format_exception(error))))


def without_names(video: InputVideo, text: str) -> str:
    """A text about a video; names of its files and folders are left out if they are to be hidden.

    Where the text names a copy of its file, it names the source instead.
    """
    if video.copy:
        text = text.replace(str(video.copy), video.source.path)
    if not video.hides_names:
        return text
    for name in (video.source.path, *video.selection.files, Path(video.source.path).name):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "...", text)
    return text
