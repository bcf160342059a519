"""Grouping the files of a folder into videos: a file may hold one video, several, or a part of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from vidlat.errors import DecodeError
from vidlat.pipeline.known_files import NOTHING_KNOWN, KnownFiles
from vidlat.prefetch import map_ahead
from vidlat.types import WHOLE, Selection
from vidlat.video.dicom_series import Slice, dicom_series, read_slice
from vidlat.video.images import has_pages, image_sequences, is_named_like_picture
from vidlat.video.nifti import nifti_videos
from vidlat.video.reader import is_named_like_video, kind_of

_Group = tuple[tuple[Path, ...], str | None]
"""Files that make up a video, in order, and which of several videos of the same files it is."""

OPENED_AT_ONCE = 8
"""Files of a folder: on a network disk, to open one takes a round trip."""

DECODED_MARK = ".vidlat-decoded"
"""A file in a folder of decoded videos and samples, which are no clips of the folder around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundVideo:
    """A video in a folder.

    name: relative to the folder, empty where the whole folder is the video. is_still: a DICOM image of one
    frame, which belongs to no series.
    """

    name: str
    path: Path
    selection: Selection = WHOLE
    is_still: bool = False


def videos_in_folder(
    folder: Path, files: Sequence[Path], known: KnownFiles = NOTHING_KNOWN
) -> tuple[list[FoundVideo], list[Path]]:
    """The videos among files of one folder, and the files that belong to none.

    The slices of a DICOM series are a video, and so are numbered pictures. Such a video is named like the
    folder if it is the only one, else like its first file. known: files that need not be opened.
    """
    whole, known_groups, rest = _look_up(folder, files, known)
    contents = _contents(rest)
    slices = [content.slice for content in contents if content.slice]
    pictures = [content.path for content in contents if content.is_picture]
    has_new_slice = any(piece.group is not None for piece in slices)
    if (has_new_slice and (whole or known_groups)) or (pictures and known_groups):
        return videos_in_folder(folder, files)  # what is known may form a video with what is new
    groups = [
        *known_groups,
        *((series.files, series.part) for series in dicom_series(slices)),
        *((tuple(sequence), None) for sequence in image_sequences(pictures)),
    ]
    alone = {content.path: content.videos for content in contents}
    for path in {path for group, _ in groups for path in group}:
        alone.pop(path, None)
    found = [*whole, *_name_groups(folder, groups), *chain.from_iterable(alone.values())]
    return found, [path for path, videos in alone.items() if not videos]


def require_one_video(path: Path) -> None:
    """Raise DecodeError for a file that holds several videos, or is one slice of a series.

    Only a folder is searched for those: an object of a bucket is looked at without those beside it.
    """
    content, way_out = _content_of(path), "; copy the folder to a disk and encode it there"
    num_parts = sum(video.selection.part is not None for video in content.videos)
    if num_parts:
        raise DecodeError(f"holds {num_parts} videos; expected one in an object{way_out}", "several-videos")
    if content.slice and content.slice.group is not None:
        raise DecodeError(f"is one image of a DICOM series; expected a video in an object{way_out}", "series")


def _look_up(
    folder: Path, files: Sequence[Path], known: KnownFiles
) -> tuple[list[FoundVideo], list[_Group], list[Path]]:
    """The videos and the groups of files that are known, and the files that are not."""
    place, given = folder.absolute(), {path.name: path for path in files}
    groups: list[_Group] = [
        (tuple(given[name] for name in names), part)
        for names, part in known.groups_in(folder)
        if given.keys() >= set(names)
    ]
    grouped = {path for group, _ in groups for path in group}
    whole, rest = [], []
    for path in files:
        if path in grouped:
            continue
        if known.is_whole_video(f"{place}/{path.name}"):
            whole.append(FoundVideo(name=path.name, path=path))
        else:
            rest.append(path)
    return whole, groups, rest


def _name_groups(folder: Path, groups: Sequence[_Group]) -> Iterator[FoundVideo]:
    parts = [part for _, part in groups]
    # A series whose slices have many times each is several videos of the same name.
    is_alone = len(groups) == 1 or (None not in parts and len(set(parts)) == len(parts))
    for group, part in groups:
        names = [] if is_alone else [min(path.name for path in group)]
        yield FoundVideo(
            name="/".join(names + ([part] if part else [])),
            path=folder,
            selection=Selection(files=tuple(path.name for path in group), part=part),
        )


def _contents(files: Sequence[Path]) -> list[_Content]:
    """What each file holds; of many, several are open at once."""
    if len(files) <= 4 * OPENED_AT_ONCE:
        return list(map(_content_of, files))
    return list(map_ahead(_content_of, files, OPENED_AT_ONCE, 4 * OPENED_AT_ONCE))


@dataclass(frozen=True, slots=True)
class _Content:
    """What one file holds: the videos that it is by itself, and whether it may be a part of another one."""

    path: Path
    videos: list[FoundVideo]
    slice: Slice | None = None
    is_picture: bool = False


def _content_of(path: Path) -> _Content:
    whole = FoundVideo(name=path.name, path=path)
    itself = [whole] if is_named_like_video(path) else []
    try:
        if not path.is_file():
            return _Content(path, [])
        with path.open("rb") as file:
            match kind_of(file):
                case "dicom":
                    return _dicom(whole, read_slice(path, file))
                case "nifti" if parts := nifti_videos(path, file):
                    return _Content(path, _parts(path, parts))
                case "image":
                    # A broken picture must not leave a gap in its sequence: the encode will report it.
                    with suppress(DecodeError, OSError):
                        if has_pages(path, file):
                            return _Content(path, [whole])
                        return _Content(path, itself, is_picture=True)
                    return _Content(path, [whole], is_picture=True)
                case None if is_named_like_picture(path):
                    return _Content(path, [], is_picture=True)
                case None:
                    return _Content(path, itself)
    except (DecodeError, OSError):
        pass  # the encode will report why
    return _Content(path, [whole])


def _dicom(whole: FoundVideo, piece: Slice) -> _Content:
    videos = [replace(whole, is_still=piece.is_still)] if piece.holds_pixels else []
    return _Content(whole.path, _parts(whole.path, piece.parts) if piece.parts else videos, slice=piece)


def _parts(path: Path, parts: Sequence[str]) -> list[FoundVideo]:
    named = ((f"{path.name}/{part}", Selection(part=part)) for part in parts)
    return [FoundVideo(name=name, path=path, selection=selection) for name, selection in named]
