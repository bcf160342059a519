"""Files that state the part of each video, for training, validation or testing."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from vidlat.errors import InputError, one_line
from vidlat.files import create_file, read_file, replace_file
from vidlat.labels.matching import match_labels
from vidlat.labels.reading import read_labels
from vidlat.labels.tables import header_of
from vidlat.types import Annotation, Source
from vidlat.wording import shorten

PARTS = ("train", "val", "test")

PART_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What a label that tells the split of a data set may say, in lower case, and what it means."""

MOST_BYTES = 2**30
"""Of a file that is extended: a million videos take a tenth of it."""


class Placed(NamedTuple):
    """The subject of a video and its part."""

    subject: str
    part: str


def read_split(path: Path, sources: Mapping[str, Source]) -> dict[str, Placed]:
    """The part of each video, and its subject where the file tells it, by video_id.

    The file is a table of `video_id`, `split` (train, val or test) and perhaps `subject`, whose rows name
    videos as those of labels do. Raises InputError for a file that cannot be read, that has no such column,
    says another thing of a video, or tells nothing of one of these.
    """
    rows = read_split_rows(path)
    match = match_labels(rows, sources, table="split")
    if match.unlabelled:
        raise InputError(
            f"split: {path} does not tell the part of {len(match.unlabelled):,} of {len(sources):,} videos: "
            f"{shorten(match.unlabelled)}; `vidlat split` with --extend adds them"
        )
    return {video_id: Placed(row.subject, row.labels["split"]) for video_id, row in match.rows.items()}


def read_split_rows(path: Path) -> dict[str, Annotation]:
    """The rows of such a file by name, each with its part as label `split`; raises InputError."""
    rows, table = {}, read_labels(path)
    if not any(label.lower() == "split" for row in table.values() for label in row.labels):
        raise InputError(
            f"split: {path} has no column split; expected train, val or test there for each video, as "
            "`vidlat split` writes it"
        )
    for name, row in table.items():
        text = next((text for label, text in row.labels.items() if label.lower() == "split"), "")
        if text.lower() not in PART_OF:
            raise InputError(
                f"{path}: the split of {name!r} is {text!r}; expected train, val or test in a column split"
            )
        rows[name] = Annotation(row.subject, {"split": PART_OF[text.lower()]})
    return rows


def create_split(path: Path, rows: Mapping[str, Placed]) -> None:
    """Write a new file of rows by video_id; raises InputError where there is one or it cannot be written."""
    text = _lines([("video_id", "subject", "split"), *((id, *rows[id]) for id in sorted(rows))])
    try:
        create_file(path, text.encode())
    except FileExistsError as error:
        raise InputError(
            f"--out {path}: is there already; --extend adds the videos that it lacks and moves none of the "
            "others, or give another name"
        ) from error
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written: {one_line(error)}") from error


def extend_split(path: Path, rows: Mapping[str, Placed]) -> None:
    """Add rows, in the columns of the file; what stands there stays as it is. Raises InputError."""
    try:
        before = read_file(path, MOST_BYTES).decode("utf-8")
        mark, columns = header_of(before.removeprefix("\ufeff").partition("\n")[0], "video_id")
        added = _lines((_in_columns(columns, id, rows[id]) for id in sorted(rows)), mark)
        replace_file(path, f"{before.rstrip()}\n{added}".encode())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--out {path}: cannot be extended: {one_line(error)}") from error


def _in_columns(columns: Sequence[str], video_id: str, row: Placed) -> list[str]:
    cells = {"video_id": video_id, "subject": row.subject, "split": row.part}
    return [cells.get(name) or cells.get(name.lower(), "") for name in columns]


def _lines(rows: Iterable[Sequence[str]], delimiter: str = ",") -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n", delimiter=delimiter).writerows(rows)
    return text.getvalue()
