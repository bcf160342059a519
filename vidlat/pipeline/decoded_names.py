"""The names of the files that show videos of a cache: unique, whatever the ids, and inside their folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from vidlat.errors import InputError, shown
from vidlat.video.reader import VIDEO_SUFFIXES

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4095
"""Limits of Linux for one name and for a whole path."""


def file_stems(video_ids: Collection[str], taken: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """What the file of each video is called before its suffix: `a/b` for the video `a/b.avi`.

    Where two would share that, as `a.avi` and `a.mp4` do, they keep their whole ids. taken: stems that videos
    have already, by id; these keep them. No two are alike: a video has none where none is left for it.
    """
    whole = {video_id: os.path.normpath(video_id) for video_id in video_ids}
    short = {video_id: _without_suffix(name) for video_id, name in whole.items()}
    # A folder that is named like a video may not become the file of another.
    num_users = Counter([*short.values(), *map(_without_suffix, _folders_named_like_videos(whole.values()))])
    reserved = {*taken.values(), *whole.values()}
    stems = dict(taken)
    for video_id, name in short.items():
        is_free = num_users[name] == 1 and name not in reserved
        stems.setdefault(video_id, name if is_free else whole[video_id])
    num_files = Counter(stems.values())
    return {each: stems[each] for each in video_ids if each in taken or num_files[stems[each]] == 1}


def _without_suffix(name: str) -> str:
    suffix = next((each for each in VIDEO_SUFFIXES if name.lower().endswith(each)), "")
    short = name[: len(name) - len(suffix)]
    return name if not short or short.endswith("/") else short


def _folders_named_like_videos(names: Collection[str]) -> set[str]:
    """Those that hold the names, however deep."""
    found: set[str] = set()
    folders = {name.rpartition("/")[0] for name in names}
    while folders:
        found |= {folder for folder in folders if _without_suffix(folder) != folder}
        folders = {folder.rpartition("/")[0] for folder in folders} - folders
    return found


def path_below(folder: Path, video_id: str, stems: Mapping[str, str], suffix: str = ".mp4") -> Path:
    """The file that shows a video in a folder; its own folders are not made. stems: see `file_stems`.

    Raises InputError for a video that no file can be named after, or whose file would lie outside the folder,
    as may be in a cache from elsewhere.
    """
    if video_id not in stems:
        raise InputError(f"video {shown(video_id)}: another one has the same file name; it is not written")
    relative = Path(os.path.normpath(f"{stems[video_id]}{suffix}"))
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"video {shown(video_id)}: its file would lie outside {folder}; it is not written")
    path = folder / relative
    try:
        sizes = [len(os.fsencode(part)) for part in relative.parts]
    except UnicodeEncodeError:
        sizes = []
    if not sizes or "\0" in video_id:
        raise InputError(f"video {shown(video_id)}: no file can have its name; it is not written")
    if max(sizes) > MAX_NAME_BYTES or len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InputError(f"video {shown(video_id)}: File name too long; it is not written")
    return path
