"""Grouping the files of a folder into videos: a file may hold one video, several, or a part of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidlat.errors import DecodeError
from vidlat.types import WHOLE, Selection
from vidlat.video.dicom import holds_pixels
from vidlat.video.dicom_series import dicom_series
from vidlat.video.images import image_sequences, is_named_like_picture, is_single_picture
from vidlat.video.nifti import nifti_videos
from vidlat.video.reader import Kind, is_named_like_video, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundVideo:
    """A video in a folder. name: relative to the folder, empty where the whole folder is the video."""

    name: str
    path: Path
    selection: Selection = WHOLE


def videos_in_folder(folder: Path, files: Sequence[Path]) -> tuple[list[FoundVideo], int]:
    """The videos among files of one folder, and the number of files that belong to none.

    The slices of a DICOM series are a video, and so are numbered pictures. Such a video is named like the
    folder if it is the only one, else like its first file.
    """
    kinds: dict[Kind | None, list[Path]] = {}
    found: list[FoundVideo] = []
    num_ignored = 0
    for path in files:
        try:
            kind = kind_of(path) if path.is_file() else None
        except OSError:
            found.append(FoundVideo(name=path.name, path=path))  # the encode will report why
            continue
        if kind is None and path.is_file():
            # A broken frame must not leave a gap in its sequence unnoticed: the encode will report it.
            named: dict[Kind, bool] = {
                "image": is_named_like_picture(path),
                "container": is_named_like_video(path),
            }
            kind = next((kind for kind, is_so in named.items() if is_so), None)
        kinds.setdefault(kind, []).append(path)
    groups = [
        *((series.files, series.part) for series in dicom_series(kinds.get("dicom", []))),
        *((tuple(pictures), None) for pictures in image_sequences(kinds.get("image", []))),
    ]
    found += _name_groups(folder, groups)
    grouped = {path for group, _ in groups for path in group}
    for kind, members in kinds.items():
        for path in members:
            if path in grouped:
                continue
            videos = list(_videos_of_file(kind, path))
            found += videos
            num_ignored += not videos
    return found, num_ignored


def _name_groups(folder: Path, groups: Sequence[tuple[tuple[Path, ...], str | None]]) -> Iterator[FoundVideo]:
    parts = [part for _, part in groups]
    # A series whose slices have many times each is several videos of the same name.
    is_alone = len(groups) == 1 or (None not in parts and len(set(parts)) == len(parts))
    for group, part in groups:
        names = [] if is_alone else [min(path.name for path in group)]
        yield FoundVideo(
            name="/".join(names + ([part] if part else [])),
            path=folder,
            selection=Selection(files=tuple(path.name for path in group)),
        )


def _videos_of_file(kind: Kind | None, path: Path) -> Iterator[FoundVideo]:
    whole = FoundVideo(name=path.name, path=path)
    match kind:
        case None:
            return
        case "image":
            if not is_single_picture(path) or is_named_like_video(path):
                yield whole
        case "dicom":
            if holds_pixels(path):
                yield whole
        case "nifti":
            try:
                parts = nifti_videos(path)
            except (DecodeError, OSError):
                parts = []  # the encode will report why
            for part in parts:
                yield FoundVideo(name=f"{path.name}/{part}", path=path, selection=Selection(part=part))
            if not parts:
                yield whole
        case _:
            yield whole
