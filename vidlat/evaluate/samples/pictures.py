"""Samples and real clips to look at: a contact sheet, and a moving grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidlat.evaluate.samples.clips import Clip
from vidlat.video.contact_sheet import Row, contact_sheet, evenly_spaced
from vidlat.video.display_window import window_of_all
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import write_video

SHEET, GRID = "grid.png", "grid.mp4"

NUM_SHOWN = 8
"""Clips of each kind, at most."""


def write_pictures(
    name: str, samples: Sequence[Clip], real: Sequence[Clip], out: Path, fps: float, frame_step: int
) -> None:
    """Write samples and held-out clips, evenly chosen, to `out`: SHEET and GRID, samples above real clips.

    name: of the samples, such as `samples, 4 steps`, which the pictures tell, with the file, named after the
    seed, and the condition of each. frame_step: from one border of
    stacks to the next. Raises InputError where they cannot be written.
    """
    shown = {
        ", ".join([f"{kind}: {clip.name}", *map("=".join, clip.labels.items())]): clip.frames()
        for kind, clips in ((name, samples), ("held-out", real))
        for clip in (clips[place] for place in evenly_spaced(len(clips), NUM_SHOWN))
    }
    contact_sheet(
        [Row(name, frames, frame_step=frame_step) for name, frames in shown.items()],
        out / SHEET,
        title=f"{name}, above held-out clips",
    )
    num_columns = min(NUM_SHOWN, max(len(shown) // 2, 1))
    window = window_of_all(shown.values())
    write_video(out / GRID, side_by_side(shown, num_columns, window=window), fps)
