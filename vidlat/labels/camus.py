"""Labels in the layout of CAMUS: a folder for each patient, and in it a file of labels for each view."""

from __future__ import annotations

import re
from pathlib import Path

from vidlat.errors import InputError, one_line
from vidlat.types import Annotation

_INFO = "Info_*.cfg"
_MASK = re.compile(r"_gt\b")


def read_camus(folder: Path) -> dict[str, Annotation]:
    """Annotations of the videos below a folder, by their paths in it.

    `patient0001/Info_2CH.cfg`, lines such as `EF: 52.4`, is about each `patient0001/*_2CH_*` but the masks
    `*_gt.*`. The name of the patient's folder is the subject, `2CH` the label `view`, and each line another
    one. Raises InputError where there is no such file, or one cannot be read.
    """
    annotations: dict[str, Annotation] = {}
    for info in sorted(folder.rglob(_INFO)):
        view, patient = info.stem.removeprefix("Info_"), info.parent
        annotation = Annotation(patient.resolve().name, {"view": view} | _lines_of(info))
        videos = (path for path in patient.glob(f"*_{view}_*") if not _MASK.search(path.name))
        annotations |= {path.relative_to(folder).as_posix(): annotation for path in sorted(videos)}
    if not annotations:
        raise InputError(
            f"{folder}: is a folder, and none of CAMUS, where {_INFO} lies beside the videos of a view; "
            "expected that, or a table (.csv, .jsonl)"
        )
    return annotations


def _lines_of(info: Path) -> dict[str, str]:
    try:
        lines = info.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{info}: cannot be read as text in UTF-8: {one_line(error)}") from error
    pairs = (line.partition(":") for line in lines if line.strip())
    return {name.strip(): text.strip() for name, _, text in pairs if name.strip() and text.strip()}
