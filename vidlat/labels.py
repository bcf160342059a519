"""Which rows of a table of labels are about which videos."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vidlat.errors import InputError
from vidlat.types import Annotation, Selection, source_id

_EXTENSION = re.compile(r"(\.nii)?\.[^.]+$")


def rows_of(rows: Mapping[str, Annotation], video_id: str, selection: Selection) -> Annotation | None:
    """What a table by id says about a video; a row of the video itself wins over one of its source."""
    found = [rows[name] for name in (source_id(video_id, selection), video_id) if name in rows]
    return found[0].updated(found[-1]) if found else None


def rows_by_id(rows: Mapping[str, Annotation], selections: Mapping[str, Selection]) -> dict[str, Annotation]:
    """The same rows by whole ids, where they name a video, or its source, by the last part of its id.

    That part may lack its extension: `0X1A` names `Videos/0X1A.avi`. selections: of the videos, by id. Rows
    of no video stay as they are. Raises InputError for a row that several videos fit, and for two rows of
    one video.
    """
    sources = {source_id(video_id, selection) for video_id, selection in selections.items()}
    by_name: dict[str, set[str]] = {}
    for whole in sources:
        name = whole.rpartition("/")[2]
        for short in (name, _EXTENSION.sub("", name)):
            by_name.setdefault(short, set()).add(whole)
    found: dict[str, Annotation] = {}
    for name, row in rows.items():
        is_whole = name in sources or name in selections
        fitting = [name] if is_whole else sorted(by_name.get(name, [name]))
        if len(fitting) > 1:
            several = f"{len(fitting)} videos, {fitting[0]} and {fitting[1]} among them"
            raise InputError(f"labels: {name!r} fits {several}; give whole ids in the table")
        if fitting[0] in found:
            raise InputError(f"labels: {name!r} and another row both mean {fitting[0]!r}; keep one")
        found[fitting[0]] = row
    return found
