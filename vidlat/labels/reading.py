"""Reading labels: of a table, or of a folder in the layout of CAMUS."""

from __future__ import annotations

from pathlib import Path

from vidlat.errors import InputError
from vidlat.labels.camus import read_camus
from vidlat.labels.tables import read_table
from vidlat.types import Annotation


def read_labels(path: Path) -> dict[str, Annotation]:
    """Annotations by id: the column `video_id`, an optional `subject`, and any other column as a label.

    In CSV, a column `FileName` or `file_name` will do; see `match_labels` for what may stand there. A folder
    is read as `read_camus` does. Raises InputError for a table that cannot be read, has no row or lists a
    video twice.
    """
    if path.is_dir():
        return read_camus(path)
    labels: dict[str, Annotation] = {}
    for where, cells in read_table(path, "video_id"):
        video_id = cells.pop("video_id")
        if video_id in labels:
            raise InputError(f"{where}: {video_id!r} stands in an earlier line too; keep one")
        labels[video_id] = Annotation(cells.pop("subject", ""), cells)
    if not labels:
        raise InputError(f"{path}: holds no row; expected one for each video that has labels")
    return labels
