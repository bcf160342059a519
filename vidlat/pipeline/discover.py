"""Which videos there are: files, folders and globs to sources with stable ids."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidlat.errors import InputError
from vidlat.types import VideoSource
from vidlat.video.reader import is_video


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The videos found, sorted by id, and how many files were passed over because they are no video."""

    sources: list[VideoSource]
    num_ignored: int


def discover_videos(inputs: Sequence[str]) -> Discovery:
    """Find the videos under files, folders and glob patterns; content decides, not the name.

    A video's id is its POSIX path below the folder (or the pattern's fixed part) it was found in, extension
    kept, undecodable bytes %-escaped. A file that several inputs reach counts once, for the first of them.
    Hidden files are passed over.
    Raises InputError for an input that is not there or cannot be listed, two files of one id, or no video.
    """
    found: dict[str, VideoSource] = {}
    seen: set[Path] = set()
    num_ignored = 0
    for root, path in _files(inputs):
        if path.absolute() in seen:
            continue
        seen.add(path.absolute())
        source = _to_source(root, path)
        if source is None:
            num_ignored += 1
            continue
        other = found.setdefault(source.video_id, source)
        if not other.path.samefile(source.path):
            raise InputError(
                f"{other.path} and {source.path} would both be video {source.video_id!r}; "
                "give the folder above both as --input"
            )
    if not found:
        where = ", ".join(inputs)
        raise InputError(f"no video in {where} ({num_ignored} other files); is it the right folder?")
    return Discovery(sources=[found[video_id] for video_id in sorted(found)], num_ignored=num_ignored)


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(inputs: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Pairs of the folder that ids start from and a file in it."""
    for pattern in inputs:
        path = Path(pattern)
        if path.is_dir():
            yield from ((path, file) for file in _walk(path))
        elif path.exists():
            yield path.parent, path
        elif glob.has_magic(pattern):
            matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  (patterns may be absolute)
            if not matches:
                raise InputError(f"--input {pattern}: the pattern matches nothing")
            root = _fixed_part(pattern)
            for match in map(Path, matches):
                yield from ((root, file) for file in (_walk(match) if match.is_dir() else [match]))
        else:
            raise InputError(f"--input {pattern}: no such file or folder")


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    # A folder passed over in silence would be a data set that shrank in silence.
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable")


def _fixed_part(pattern: str) -> Path:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _to_source(root: Path, path: Path) -> VideoSource | None:
    """None for what is no video. A file named like one stays, opened or not: at worst it is a failure."""
    try:
        if not path.is_file() or not is_video(path):
            return None
        status = path.stat()
    except OSError:
        return None
    return VideoSource(
        video_id=_escape(path.relative_to(root).as_posix()),
        path=path.absolute(),
        num_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )


def _escape(name: str) -> str:
    """Replace bytes that are no UTF-8 (surrogates in a Python path) by %XX, and % itself only beside them."""
    if not any("\udc80" <= letter <= "\udcff" for letter in name):
        return name
    return "".join(
        f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter
        for letter in name.replace("%", "%25")
    )
