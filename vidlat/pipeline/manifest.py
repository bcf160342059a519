"""Manifests: tables that list videos."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidlat.errors import InputError
from vidlat.labels.tables import SUFFIXES, read_table
from vidlat.types import Annotation


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """A video that a manifest names.

    where: file and line, for errors. path: as written there. video_id: None to derive it from the path.
    """

    where: str
    path: str
    video_id: str | None
    start_seconds: float | None
    stop_seconds: float | None
    annotation: Annotation


def is_manifest(table: Path | str) -> bool:
    """Whether an input, a path or an address, is a manifest, by its name: the content is plain text."""
    if isinstance(table, Path):
        return table.suffix.lower() in SUFFIXES and table.is_file()
    return table.lower().endswith(SUFFIXES)


def read_manifest(table: Path | str) -> Iterator[ManifestRow]:
    """The rows of a manifest: `path`, and optional `id`, `start_seconds`, `stop_seconds`, `subject`, labels.

    In CSV, a single column whose name ends in `path` will do, such as `dicom_filepath`.
    table: its path or address. Raises InputError, naming the line, for a table that cannot be read or a row
    with invalid values; Unreachable.
    """
    for where, cells in read_table(table, "path"):
        start, stop = (
            _seconds(where, name, cells.pop(name, None)) for name in ("start_seconds", "stop_seconds")
        )
        if start is not None and stop is not None and start >= stop:
            raise InputError(f"{where}: stop_seconds {stop:g} is not after start_seconds {start:g}")
        yield ManifestRow(
            where=where,
            path=cells.pop("path"),
            video_id=cells.pop("id", None),
            start_seconds=start,
            stop_seconds=stop,
            annotation=Annotation(cells.pop("subject", ""), cells),
        )


def _seconds(where: str, name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(
            f"{where}: {name} is {text!r}; expected seconds from the video's first frame, 0 or more"
        )
    return seconds
