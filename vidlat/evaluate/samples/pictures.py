"""Samples and real clips to look at: a contact sheet, and a moving grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidlat.evaluate.samples.clips import Clip
from vidlat.video.contact_sheet import Row, contact_sheet, evenly_spaced
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import write_video

SHEET, GRID = "grid.png", "grid.mp4"

NUM_SHOWN = 8
"""Clips of each kind, at most."""


def write_pictures(samples: Sequence[Clip], real: Sequence[Clip], out: Path, fps: float) -> None:
    """Write samples and held-out clips, evenly chosen, to `out`: SHEET and GRID, samples above real clips.

    Raises InputError where they cannot be written.
    """
    shown = {
        f"{kind}: {clip.name}": clip.frames()
        for kind, clips in (("sample", samples), ("real", real))
        for clip in (clips[place] for place in evenly_spaced(len(clips), NUM_SHOWN))
    }
    contact_sheet([Row(name, frames) for name, frames in shown.items()], out / SHEET)
    num_columns = min(NUM_SHOWN, max(len(shown) // 2, 1))
    write_video(out / GRID, side_by_side(shown, num_columns), fps)
