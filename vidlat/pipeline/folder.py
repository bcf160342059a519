"""Grouping the files of a folder into videos: a file may hold one video, several, or a part of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from vidlat.errors import DecodeError
from vidlat.types import WHOLE, Selection
from vidlat.video.dicom_series import Slice, dicom_series, read_slice
from vidlat.video.images import has_pages, image_sequences, is_named_like_picture
from vidlat.video.nifti import nifti_videos
from vidlat.video.reader import is_named_like_video, kind_of

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


def videos_in_folder(folder: Path, files: Sequence[Path]) -> tuple[list[FoundVideo], list[Path]]:
    """The videos among files of one folder, and the files that belong to none.

    The slices of a DICOM series are a video, and so are numbered pictures. Such a video is named like the
    folder if it is the only one, else like its first file.
    """
    slices: list[Slice] = []
    pictures: list[Path] = []
    alone = {path: _videos_of_file(path, slices, pictures) for path in files}
    groups = [
        *((series.files, series.part) for series in dicom_series(slices)),
        *((tuple(sequence), None) for sequence in image_sequences(pictures)),
    ]
    for path in {path for group, _ in groups for path in group}:
        del alone[path]
    found = [*_name_groups(folder, groups), *chain.from_iterable(alone.values())]
    return found, [path for path, videos in alone.items() if not videos]


def _name_groups(folder: Path, groups: Sequence[tuple[tuple[Path, ...], str | None]]) -> Iterator[FoundVideo]:
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


def _videos_of_file(path: Path, slices: list[Slice], pictures: list[Path]) -> list[FoundVideo]:
    """The videos that a file is by itself; a possible part of another one is added to slices or pictures."""
    whole = FoundVideo(name=path.name, path=path)
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            match kind_of(file):
                case "dicom":
                    slices.append(read_slice(path, file))
                    if slices[-1].parts:
                        return _parts(path, slices[-1].parts)
                    still = replace(whole, is_still=slices[-1].is_still)
                    return [still] if slices[-1].holds_pixels else []
                case "nifti" if parts := nifti_videos(path, file):
                    return _parts(path, parts)
                case "image":
                    # A broken picture must not leave a gap in its sequence: the encode will report it.
                    pictures.append(path)
                    if has_pages(path, file):
                        pictures.pop()
                    elif not is_named_like_video(path):
                        return []
                case None if is_named_like_picture(path):
                    pictures.append(path)
                    return []
                case None if not is_named_like_video(path):
                    return []
    except (DecodeError, OSError):
        pass  # the encode will report why
    return [whole]


def _parts(path: Path, parts: Sequence[str]) -> list[FoundVideo]:
    named = ((f"{path.name}/{part}", Selection(part=part)) for part in parts)
    return [FoundVideo(name=name, path=path, selection=selection) for name, selection in named]
