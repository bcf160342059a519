"""Which rows of a table of labels are about which videos."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vidlat.errors import InputError
from vidlat.types import Annotation, Source, source_id
from vidlat.wording import format_count, shorten

MAX_NAMES = 3
"""Most rows or videos that a line names as examples."""

_EXTENSION = re.compile(r"(\.nii)?\.[A-Za-z]\w{0,4}$")

_WHOLE, _NAME, _STEM = range(3)
"""How exactly a row names a video: by its whole id, by the end of its path, or but for an extension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMatch:
    """What a table tells of which video.

    rows: by the ids of those that it tells of. ways: numbers of them, by what names them in the table.
    unmatched: names in the table that are no video's. unlabelled: ids of the other videos.
    """

    rows: dict[str, Annotation]
    ways: Counter[str]
    unmatched: tuple[str, ...]
    unlabelled: tuple[str, ...]

    def lines(self, *, hide: bool = False) -> Iterator[str]:
        """What was matched and what was not, one line each; hide: without any name."""
        num_videos = len(self.rows) + len(self.unlabelled)
        counts = [f", {count:,} by {way}" for way, count in self.ways.most_common()]
        how = f" by {next(iter(self.ways))}" if len(counts) == 1 else "".join(counts)
        yield f"labels: {len(self.rows):,} of {format_count(num_videos, 'video')}{how}"
        for names, noun, lacks in ((self.unlabelled, "video", "row"), (self.unmatched, "row", "video")):
            if names:
                which = "" if hide else f": {shorten(names, MAX_NAMES)}"
                yield f"labels: {format_count(len(names), noun)} without a {lacks}{which}"


def match_labels(
    rows: Mapping[str, Annotation],
    sources: Mapping[str, Source],
    *,
    is_part: bool = False,
    hide: bool = False,
    table: str = "labels",
) -> LabelMatch:
    """Find the row of each video, and of the source it is taken from; its own row wins.

    A row names a video by its id, by the end of it, such as `0X1A.avi` for `Videos/0X1A.avi`, or by a longer
    path that ends with it; where the table or the id lacks the extension, without it. An id as a whole goes
    before all else. sources: of the videos, by id. is_part: the videos are some of those that the table is
    about, so that there may be a row for none of them, and no row is called unmatched. hide: errors name no
    row and no video, where there is no match. table: what errors call it. Raises InputError for a row that
    several videos fit, for two rows of one video, and where no row is any video's.
    """
    wholes = {video_id: source_id(video_id, source.selection) for video_id, source in sources.items()}
    try:
        found = _rows_by_id(rows, set(wholes.values()), sources.keys())
    except InputError as error:
        raise InputError(f"{table}: {error}") from error
    matched, ways = {}, Counter[str]()
    for video_id, whole in wholes.items():
        of_video = [found[name] for name in (whole, video_id) if name in found]
        if of_video:
            matched[video_id] = of_video[0].annotation.updated(of_video[-1].annotation)
            ways[of_video[-1].way] += 1
    if rows and not (matched or is_part):
        both = f": the table names {_quoted(rows)}, the videos are {_quoted(sources)}"
        raise InputError(
            f"{table}: none of the {len(rows):,} rows is about one of the {len(sources):,} videos"
            f"{'' if hide else both}; expected their ids or file names, with or without extension"
        )
    used = {row.name for row in found.values()}
    return LabelMatch(
        rows=matched,
        ways=ways,
        unmatched=() if is_part else tuple(sorted(rows.keys() - used)),
        unlabelled=tuple(sorted(sources.keys() - matched.keys())),
    )


def _quoted(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return f"{first!r}{', ...' * bool(more)}"


class _Row(NamedTuple):
    """A row with its name in the table, and what of the video this is."""

    name: str
    way: str
    annotation: Annotation


def _rows_by_id(
    rows: Mapping[str, Annotation], sources: set[str], video_ids: Iterable[str]
) -> dict[str, _Row]:
    """The rows that are about a source or a video, by its whole id."""
    by_name: dict[str, list[str]] = {}
    for whole in sources:
        for short in {_last(whole), _stem(_last(whole))}:
            by_name.setdefault(short, []).append(whole)
    wholes = sources | set(video_ids)
    found: dict[str, _Row] = {}
    for name, annotation in rows.items():
        fitting = {name: _WHOLE} if name in wholes else _fitting(name, by_name, rows)
        best = min(fitting.values(), default=_STEM)
        ids = sorted(whole for whole, exactness in fitting.items() if exactness == best)
        if len(ids) > 1:
            several = f"{len(ids)} videos, {ids[0]} and {ids[1]} among them"
            raise InputError(f"{name!r} fits {several}; give whole ids in the table")
        for whole in ids:
            if whole in found:
                raise InputError(
                    f"{found[whole].name!r} and {name!r} both mean {whole!r}; keep one of these rows"
                )
            way = "file name without extension" if best == _STEM else "path" if "/" in name else "file name"
            found[whole] = _Row(name, way, annotation)
    return found


def _fitting(name: str, by_name: Mapping[str, list[str]], rows: Mapping[str, Annotation]) -> dict[str, int]:
    """How exactly the name names each of the sources that it may mean."""
    fitting = {}
    for short in {_last(name), _stem(_last(name))}:
        for whole in by_name.get(short, []):
            exactness = _exactness(name, whole)
            is_taken = whole in rows and name.endswith(f"/{whole}")  # a longer path is another video's
            if exactness is not None and not is_taken:
                fitting[whole] = exactness
    return fitting


def _exactness(name: str, whole: str) -> int | None:
    if _ends_alike(name, whole):
        return _NAME
    return _STEM if _ends_alike(name, _stem(whole)) or _ends_alike(_stem(name), whole) else None


def _ends_alike(one: str, other: str) -> bool:
    return one == other or one.endswith(f"/{other}") or other.endswith(f"/{one}")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    return _EXTENSION.sub("", name)
