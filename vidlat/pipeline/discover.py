"""Finding videos: files, folders, glob patterns and manifests to sources with stable ids."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from vidlat.config import Ids
from vidlat.errors import InputError
from vidlat.pipeline.folder import FoundVideo, videos_in_folder
from vidlat.pipeline.manifest import ManifestRow, is_manifest, read_labels, read_manifest
from vidlat.store.sources import hashed_name, size_and_time
from vidlat.types import Annotation, VideoSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The videos found, sorted by id.

    num_ignored: files that are not videos. unmatched: ids in the table of labels that no video has.
    unlabelled: ids of the videos that are not in that table. Both are empty where there is no table.
    """

    sources: list[VideoSource]
    num_ignored: int
    unmatched: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()


def discover_videos(inputs: Sequence[str], *, labels: Path | None = None, ids: Ids = "path") -> Discovery:
    """Find the videos in files, folders, glob patterns and manifests, by content and not by name.

    A video's id is its POSIX path relative to the input folder (or the fixed part of the pattern), with its
    extension and with undecodable bytes %-escaped, unless a manifest gives one. A file that several inputs
    reach belongs to the first of them. Hidden files are ignored. labels: a table by id, see `read_labels`.
    ids: "hash" replaces each id by a hash and hides all names.
    Raises InputError for an input that does not exist or cannot be listed, for two files of one id, and where
    there is no video.
    """
    collection = _Collection()
    for text in inputs:
        collection.add_input(text)
    found = collection.found
    if not found:
        where = ", ".join(inputs)
        raise InputError(
            f"no video in {where} ({collection.num_ignored} other files); is it the right folder?"
        )
    told = read_labels(labels) if labels else {}
    sources = [_annotated(found[video_id], told) for video_id in found]
    if ids == "hash":
        sources = [
            replace(source, video_id=hashed_name(source.video_id), hides_names=True) for source in sources
        ]
    return Discovery(
        sources=sorted(sources, key=lambda source: source.video_id),
        num_ignored=collection.num_ignored,
        unmatched=tuple(sorted(told.keys() - found.keys())),
        unlabelled=tuple(sorted(found.keys() - told.keys())) if labels else (),
    )


def _annotated(source: VideoSource, labels: Mapping[str, Annotation]) -> VideoSource:
    """What a table of labels tells wins over the manifest, column by column."""
    told = labels.get(source.video_id)
    if told is None:
        return source
    known = source.annotation or Annotation()
    annotation = Annotation(told.subject or known.subject, {**known.labels, **told.labels})
    return replace(source, annotation=annotation)


@dataclass
class _Collection:
    found: dict[str, VideoSource] = field(default_factory=dict)
    num_ignored: int = 0
    _places: set[tuple[Path, str]] = field(default_factory=set)

    def add_input(self, text: str) -> None:
        path = Path(text)
        if path.is_dir():
            for folder, files in _walk(path):
                self._add_files(path, folder, files)
        elif is_manifest(path):
            for row in read_manifest(path):
                self._add_row(path, row)
        elif path.exists():
            self._add_files(path.parent, path.parent, [path])
        elif glob.has_magic(text):
            self._add_matches(text)
        else:
            raise InputError(f"--input {text}: no such file or folder")

    def _add_matches(self, pattern: str) -> None:
        matches = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207  (may be absolute)
        if not matches:
            raise InputError(f"--input {pattern}: the pattern matches nothing")
        root = _fixed_part(pattern)
        for folder in filter(Path.is_dir, matches):
            for below, files in _walk(folder):
                self._add_files(root, below, files)
        files = [path for path in matches if not path.is_dir()]
        for folder, members in groupby(files, key=lambda path: path.parent):
            self._add_files(root, folder, list(members))

    def _add_files(self, root: Path, folder: Path, files: Sequence[Path]) -> None:
        videos, num_ignored = videos_in_folder(folder, files)
        self.num_ignored += num_ignored
        for video in videos:
            self._add(_to_source(video, (folder / video.name).relative_to(root).as_posix(), root))

    def _add_row(self, manifest: Path, row: ManifestRow) -> None:
        path = manifest.parent / row.path
        folder, files = (path, _files_in(path)) if path.is_dir() else (path.parent, [path])
        videos, _ = videos_in_folder(folder, files)
        if not videos and path.is_dir():
            raise InputError(f"{row.where}: {row.path} is a folder without a video of its own")
        # A manifest names videos: where a file is none, the encode reports it.
        for video in videos or [FoundVideo(name=path.name, path=path)]:
            place = (folder / video.name).relative_to(path).as_posix()
            video_id = "/".join([row.video_id or _default_id(row), *([] if place == "." else [place])])
            source = _to_source(video, video_id, manifest.parent)
            stretch = replace(
                source.selection, start_seconds=row.start_seconds, stop_seconds=row.stop_seconds
            )
            self._add(replace(source, selection=stretch, annotation=row.annotation))

    def _add(self, source: VideoSource) -> None:
        place = source.path, source.selection.to_text()
        if source.annotation is None and place in self._places:
            return
        self._places.add(place)
        other = self.found.setdefault(source.video_id, source)
        if not _is_same(other, source):
            raise InputError(
                f"{other.path} and {source.path} would both be video {source.video_id!r}; "
                "give the folder above both as --input, or another id in a manifest"
            )
        if source.annotation is not None:
            if other.annotation not in (None, source.annotation):
                raise InputError(f"a manifest names {source.video_id!r} twice, with other labels; keep one")
            self.found[source.video_id] = source


def _is_same(one: VideoSource, other: VideoSource) -> bool:
    if one.selection != other.selection:
        return False
    try:
        return one.path == other.path or one.path.samefile(other.path)
    except OSError:
        return False


def _to_source(video: FoundVideo, video_id: str, root: Path) -> VideoSource:
    # A video that is the whole input folder has the name of that folder.
    named = root.resolve().name if video_id == "." else video_id
    try:
        num_bytes, mtime_ns = size_and_time(video.path, video.selection.files)
    except OSError:
        num_bytes = mtime_ns = 0  # the encode will report why
    return VideoSource(
        video_id=_escape(named),
        path=video.path.absolute(),
        num_bytes=num_bytes,
        mtime_ns=mtime_ns,
        selection=video.selection,
    )


def _default_id(row: ManifestRow) -> str:
    parts = Path(os.path.normpath(row.path)).parts
    path = "/".join(part for part in parts if part not in ("..", "/"))
    if row.start_seconds is None and row.stop_seconds is None:
        return path
    stop = "" if row.stop_seconds is None else f"{row.stop_seconds:g}"
    return f"{path}@{row.start_seconds or 0:g}-{stop}s"


def _walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder below with its files; links are followed, but no folder is entered twice."""
    entered: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(parent)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(parent), [Path(parent) / name for name in sorted(names) if not name.startswith(".")]


def _files_in(folder: Path) -> list[Path]:
    return next(files for _, files in _walk(folder))


def _refuse(error: OSError) -> None:
    # Skipping the folder would silently shrink the data set.
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable")


def _fixed_part(pattern: str) -> Path:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _escape(name: str) -> str:
    """Replace bytes that are not UTF-8 (surrogates in a Python path) by %XX; then % is escaped too."""
    if not any("\udc80" <= letter <= "\udcff" for letter in name):
        return name
    return "".join(
        f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter
        for letter in name.replace("%", "%25")
    )
