"""Which videos are named like masks and label maps, which lie beside the videos that they segment."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

from vidlat.types import InputVideo

_WORD = r"(?:gt|seg|segs|segmentations?|masks?|labels?|labelmaps?)"
_IN_NAME = re.compile(rf"(?:^|[_.\- ]){_WORD}(?![a-z])", re.IGNORECASE)
_FOLDER = re.compile(rf"{_WORD}(?:_?T[rs])?", re.IGNORECASE)
"""Of masks alone, such as `masks`, or `labelsTr` of nnU-Net."""


def named_like_masks(videos: Iterable[InputVideo]) -> dict[str, list[str]]:
    """Ids of the videos whose file or folder is named like a mask, by the pattern of `--exclude` for them."""
    found: dict[str, list[str]] = {}
    for video in videos:
        if pattern := _pattern_of(video):
            found.setdefault(pattern, []).append(video.video_id)
    return found


def _pattern_of(video: InputVideo) -> str | None:
    name = next(iter(video.source.selection.files), PurePath(video.source.path).name)
    if word := _IN_NAME.search(name):
        return f"{'*' if word.start() else ''}{word[0]}*"
    folders = () if video.hides_names else PurePath(video.video_id).parts[:-1]
    folder = next(filter(_FOLDER.fullmatch, folders), None)
    return f"*{folder}/*" if folder else None
