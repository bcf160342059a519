"""What a cache tells of the files that its videos came from, so that they need not be opened again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidlat.store.sources import size_and_time
from vidlat.types import Source

_Group = tuple[tuple[str, ...], str | None]
"""Names of the files that make up a video, in order, and which of several videos of these names it is."""


class KnownFiles:
    """Files of a cache's sources that have the recorded size and time, by their absolute path.

    A file of which a video is only a part is not known: it may hold parts that the cache does not.
    """

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self._whole: dict[str, tuple[int, int]] = {}
        self._groups: defaultdict[str, list[Source]] = defaultdict(list)
        for source in sources:
            if source.selection.files:
                self._groups[source.path].append(source)
            elif source.selection.part is None and source.path:
                self._whole[source.path] = source.num_bytes, source.mtime_ns

    def groups_in(self, folder: Path) -> list[_Group]:
        """The series and sequences of pictures in a folder whose files are all as they were recorded."""
        place = str(folder.absolute())
        return [
            (source.selection.files, source.selection.part)
            for source in self._groups.get(place, ())
            if _state(place, source.selection.files) == (source.num_bytes, source.mtime_ns)
        ]

    def is_whole_video(self, path: str) -> bool:
        """Whether the file at an absolute path was one video, and is as it was recorded."""
        recorded = self._whole.get(path)
        return recorded is not None and _state(path) == recorded


def _state(path: str, files: Sequence[str] = ()) -> tuple[int, int] | None:
    try:
        return size_and_time(path, files)
    except (OSError, ValueError):
        return None


NOTHING_KNOWN = KnownFiles()
