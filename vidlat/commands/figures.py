"""Figures of quality to a file, and what is told about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidlat.commands.display import console, quoted
from vidlat.video.writer import appearing_whole
from vidlat.wording import format_count


def write_figures(path: Path, values: dict[str, Any]) -> None:
    """Write all figures as JSON, whole or not at all; raises InputError where the disk takes no more."""
    with appearing_whole(path) as draft:
        draft.write_text(json.dumps(values, indent=2) + "\n")
    console.print(f"all figures -> {quoted(path)}", soft_wrap=True)


def tell_still(num_still: int, noun: str) -> None:
    """Print why some videos have no figures of motion."""
    what = f"{format_count(num_still, noun)} without motion (a single frame, or all equal)"
    console.print(f"{what}: of them the motion has no figures.", soft_wrap=True)
