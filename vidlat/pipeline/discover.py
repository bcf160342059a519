"""Finding videos: files, folders, glob patterns and manifests to sources with stable ids."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import groupby, takewhile
from pathlib import Path
from typing import NamedTuple

from vidlat.config import Ids, Part
from vidlat.errors import InputError
from vidlat.labels.matching import LabelMatch, match_labels
from vidlat.labels.reading import read_labels
from vidlat.paths import expand, is_address, local_path
from vidlat.pipeline.bucket import address_of_row, list_objects, sources_of_rows
from vidlat.pipeline.folder import DECODED_MARK, FoundVideo, videos_in_folder
from vidlat.pipeline.ignored import describe_ignored, kind_of_name
from vidlat.pipeline.inputs import require_input
from vidlat.pipeline.known_files import NOTHING_KNOWN, KnownFiles
from vidlat.pipeline.manifest import ManifestRow, is_manifest, read_manifest
from vidlat.prefetch import map_ahead
from vidlat.store.sources import size_and_time
from vidlat.types import Annotation, InputVideo, Selection, Source, hashed_name, source_id
from vidlat.video.images import is_named_like_picture
from vidlat.video.reader import is_named_like_video
from vidlat.wording import format_count

FOLDERS_AT_ONCE = 8
"""Looked into by threads: on a network disk, to open a file takes a round trip."""

OnFiles = Callable[[int], None]
"""Called with the number of files that were looked at since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The videos found, sorted by id.

    ignored: numbers of files that are no videos, by suffix; see `describe_ignored`. num_excluded: files
    passed over as asked. num_stills: videos that are one DICOM image. num_unopened: ignored objects of a
    bucket that might be videos in a folder, where pictures and files without a suffix are opened.
    decoded: folders of decoded videos below an input, which were passed over.
    labels: what the table of labels told of which video; None where there is no table.
    """

    videos: list[InputVideo]
    ignored: Mapping[str, int]
    num_excluded: int = 0
    num_stills: int = 0
    num_unopened: int = 0
    decoded: tuple[str, ...] = ()
    labels: LabelMatch | None = None

    @property
    def num_ignored(self) -> int:
        """Files that are no videos."""
        return sum(self.ignored.values())


def discover_videos(
    inputs: Sequence[str],
    *,
    labels: Path | None = None,
    ids: Ids = "path",
    exclude: Sequence[str] = (),
    part: Part | None = None,
    known: KnownFiles = NOTHING_KNOWN,
    addresses: bool = False,
    on_files: OnFiles = lambda _: None,
) -> Discovery:
    """Find the videos in files, folders, glob patterns and manifests, by content and not by name.

    A video's id is its POSIX path relative to the input folder (or the fixed part of the pattern), with its
    extension and with undecodable bytes %-escaped, unless a manifest gives one. A file that several inputs
    reach belongs to the first of them. Hidden files are ignored. labels: a table by id, see `read_labels`; a
    row of a file or series holds for each video in it, unless that has one. ids: "hash" replaces each id by a
    hash, and hides all names. exclude: patterns; a file is passed over whose path as an id, or whose name,
    matches one, unless a manifest names it. part: only the videos of one part, by the path of their file
    below the input; a series, a still or a sequence of pictures belongs to the part of its folder. A part may
    have no video, and cannot tell which labels no video has. known: files of folders that need not be opened,
    though then a still among them is not known as one. addresses: whether inputs, and paths in a manifest,
    may be addresses of objects in a bucket, or of folders there. Those are not opened: names with the suffix
    of a video are taken, each for one video. on_files: called with the number of files of each folder.
    Raises InputError for an input that does not exist or cannot be listed, for two files of one id, and where
    there is no video; Unreachable.
    """
    collection = _Collection(exclude, part, known, addresses, on_files)
    for text in inputs:
        collection.add_input(text)
    found, stills = collection.found, collection.stills & collection.found.keys()
    if not found and not part:
        where = ", ".join(inputs)
        left_out = f", {collection.num_excluded} more excluded" if collection.num_excluded else ""
        kinds = describe_ignored(collection.ignored, hide=ids == "hash")
        left_out += f": {kinds}" if kinds else ""
        num_others = collection.ignored.total()
        others = f"{format_count(num_others, 'other file')}{left_out}"
        raise InputError(f"no video in {where} ({others}); is it the right folder?")
    videos = [*found.values()]
    match = None
    if labels:
        sources = {video.video_id: video.source for video in videos}
        match = match_labels(read_labels(labels), sources, is_part=bool(part), hide=ids == "hash")
        videos = [_annotated(video, match.rows.get(video.video_id)) for video in videos]
    if ids == "hash":
        videos = [replace(video, video_id=_hashed_id(video), hides_names=True) for video in videos]
    return Discovery(
        videos=sorted(videos, key=lambda video: video.video_id),
        ignored=collection.ignored,
        num_excluded=collection.num_excluded,
        decoded=tuple(collection.decoded),
        num_stills=len(stills),
        num_unopened=collection.num_unopened,
        labels=match,
    )


def _annotated(video: InputVideo, row: Annotation | None) -> InputVideo:
    """The video with what its row says, which wins over a manifest."""
    return replace(video, annotation=(video.annotation or Annotation()).updated(row)) if row else video


class _Folder(NamedTuple):
    """What a folder holds: videos and whether each is a still, other files, and how many were excluded."""

    videos: list[tuple[InputVideo, bool]]
    others: list[Path]
    num_excluded: int


@dataclass
class _Collection:
    exclude: Sequence[str]
    part: Part | None
    known: KnownFiles
    addresses: bool
    on_files: OnFiles
    found: dict[str, InputVideo] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    num_excluded: int = 0
    num_unopened: int = 0
    stills: set[str] = field(default_factory=set)
    decoded: list[str] = field(default_factory=list)
    _places: set[tuple[str, Selection]] = field(default_factory=set)

    def add_input(self, text: str) -> None:
        if self.addresses and is_address(text):
            add = self._add_manifest if is_manifest(text) else self._add_objects
            add(text)
            return
        text = expand(text)
        require_input(text)
        path = Path(text)
        if path.is_dir():
            self._add_folders((path, folder, files) for folder, files in self._walk_clips(path))
        elif is_manifest(path):
            self._add_manifest(path)
        elif path.exists():
            self._add_folders([(path.parent, path.parent, [path])])
        else:
            self._add_matches(text)

    def _add_objects(self, address: str) -> None:
        listing = list_objects(address, self.on_files)
        self.decoded += listing.decoded
        for name, source in listing.objects:
            path = Path(name)
            if self._excludes(name):
                self.num_excluded += 1
            elif self.part and not self.part.holds(name):
                continue
            elif is_named_like_video(path):
                self._add(InputVideo(video_id=name, source=source), is_still=False)
            else:
                kind = kind_of_name(path)
                self.ignored[kind] += 1
                self.num_unopened += not kind or is_named_like_picture(path)

    def _add_matches(self, pattern: str) -> None:
        matches = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207  (may be absolute)
        root = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
        for folder in filter(Path.is_dir, matches):
            self._add_folders((root, below, files) for below, files in self._walk_clips(folder))
        files = [path for path in matches if not path.is_dir()]
        parents = groupby(files, key=lambda path: path.parent)
        self._add_folders((root, folder, list(members)) for folder, members in parents)

    def _walk_clips(self, folder: Path) -> Iterator[tuple[Path, list[Path]]]:
        decoded: list[Path] = []
        for parent, files in _walk(folder):
            if any(parent.is_relative_to(other) for other in decoded):
                continue
            if parent != folder and (parent / DECODED_MARK).exists():
                decoded.append(parent)
                continue
            yield parent, files
        self.decoded += map(str, decoded)

    def _add_folders(self, folders: Iterable[tuple[Path, Path, Sequence[Path]]]) -> None:
        """Add the videos of folders, each given with the input that it lies below and its files."""
        for files, looked in map_ahead(self._look_into, folders, FOLDERS_AT_ONCE, 4 * FOLDERS_AT_ONCE):
            self.num_excluded += looked.num_excluded
            self.ignored.update(map(kind_of_name, looked.others))
            for video, is_still in looked.videos:
                self._add(video, is_still)
            self.on_files(files)

    def _look_into(self, place: tuple[Path, Path, Sequence[Path]]) -> tuple[int, _Folder]:
        """The number of files of a folder and what is in it; changes nothing."""
        root, folder, files = place
        kept = [path for path in files if not self._excludes(path.relative_to(root).as_posix())]
        has_folder = self._holds(folder, root)
        # Slices tell only together what they are, so that the part of a folder opens all of its files.
        opened = kept if has_folder else [path for path in kept if self._holds(path, root)]
        videos, others = videos_in_folder(folder, opened, self.known)
        mine = [
            (_to_video(found, (folder / found.name).relative_to(root).as_posix(), root), found.is_still)
            for found in videos
            if (has_folder if found.is_still or found.selection.files else self._holds(found.path, root))
        ]
        num_excluded = len(files) - len(kept)
        return len(files), _Folder(mine, others if has_folder else [], num_excluded)

    def _holds(self, path: Path, root: Path) -> bool:
        return self.part is None or self.part.holds(path.relative_to(root).as_posix())

    def _excludes(self, place: str) -> bool:
        names = place, place.rpartition("/")[2]
        return any(fnmatchcase(name, pattern) for pattern in self.exclude for name in names)

    def _add_manifest(self, table: Path | str) -> None:
        in_bucket: list[tuple[ManifestRow, str]] = []
        for row in read_manifest(table):
            if self.part and not self.part.holds(row.video_id or row.path):
                continue
            if self.addresses and (address := address_of_row(table, row)):
                in_bucket.append((row, address))
            else:
                self._add_row(Path(table), row)
        for row, source in sources_of_rows(in_bucket):
            stretch = Selection(start_seconds=row.start_seconds, stop_seconds=row.stop_seconds)
            self._add(
                InputVideo(
                    video_id=row.video_id or _path_as_id(row.path) + stretch.stretch,
                    source=source._replace(selection=stretch),
                    annotation=row.annotation,
                ),
                is_still=False,
            )

    def _add_row(self, manifest: Path, row: ManifestRow) -> None:
        try:
            path = manifest.parent / local_path(row.path)
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from error
        folder, files = next(_walk(path)) if path.is_dir() else (path.parent, [path])
        videos, _ = videos_in_folder(folder, files)
        if not videos and path.is_dir():
            raise InputError(f"{row.where}: {row.path} is a folder without a video of its own")
        # A manifest names videos: where a file is none, the encode reports it.
        for found in videos or [FoundVideo(name=path.name, path=path)]:
            place = (folder / found.name).relative_to(path).as_posix()
            selection = replace(
                found.selection, start_seconds=row.start_seconds, stop_seconds=row.stop_seconds
            )
            whole = row.video_id or _path_as_id(row.path) + selection.stretch
            video_id = "/".join([whole, *([] if place == "." else [place])])
            video = _to_video(found, video_id, manifest.parent)
            source = video.source._replace(selection=selection)
            self._add(replace(video, source=source, annotation=row.annotation), found.is_still)

    def _add(self, video: InputVideo, is_still: bool) -> None:
        if is_still:
            self.stills.add(video.video_id)
        place = video.source.path, video.source.selection
        if video.annotation is None and place in self._places:
            return
        self._places.add(place)
        other = self.found.setdefault(video.video_id, video)
        if not _is_same(other, video):
            raise InputError(
                f"{other.source.path} and {video.source.path} would both be video {video.video_id!r}; "
                "give the folder above both as --input, or another id in a manifest"
            )
        if video.annotation is not None:
            if other.annotation not in (None, video.annotation):
                raise InputError(f"a manifest names {video.video_id!r} twice, with other labels; keep one")
            self.found[video.video_id] = video


def _is_same(one: InputVideo, other: InputVideo) -> bool:
    if one.source.selection != other.source.selection:
        return False
    try:
        return one.source.path == other.source.path or one.path.samefile(other.path)
    except OSError:
        return False


def _to_video(found: FoundVideo, video_id: str, root: Path) -> InputVideo:
    # A video that is the whole input folder has the name of that folder.
    name = root.resolve().name if video_id == "." else video_id
    try:
        num_bytes, mtime_ns = size_and_time(found.path, found.selection.files)
    except OSError:
        num_bytes = mtime_ns = 0  # the encode will report why
    source = Source(str(found.path.absolute()), num_bytes, mtime_ns, selection=found.selection)
    return InputVideo(video_id=_escape(name), source=source)


def _path_as_id(path: str) -> str:
    if is_address(path):
        path = path.partition("://")[2]
    parts = Path(os.path.normpath(path)).parts
    return "/".join(part for part in parts if part not in ("..", "/"))


def _hashed_id(video: InputVideo) -> str:
    """The parts of a source keep what tells them apart, so that they are known to belong together."""
    whole = source_id(video.video_id, video.selection)
    return hashed_name(whole) + video.video_id[len(whole) :]


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


def _refuse(error: OSError) -> None:
    # Skipping the folder would silently shrink the data set.
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable")


def _escape(name: str) -> str:
    """Replace bytes that are not UTF-8 (surrogates in a Python path) by %XX; then % is escaped too."""
    if not any("\udc80" <= letter <= "\udcff" for letter in name):
        return name
    return "".join(
        f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter
        for letter in name.replace("%", "%25")
    )
