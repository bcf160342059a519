"""Samples beside the training clips that they are nearest to, to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.copies.result import Copies
from vidlat.encode.vae import FrozenVAE
from vidlat.pipeline.decode_videos import decode_latents, to_gray_levels
from vidlat.store.reader import LatentCache
from vidlat.video.contact_sheet import Row, contact_sheet
from vidlat.video.display_window import window_of_all
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import write_video

SHEET, PAIRS = "copies.png", "copies.mp4"

NUM_PAIRS = 8
"""Pairs that are shown, at most: the nearest."""

Frames = npt.NDArray[np.uint8]


def write_pairs(
    name_of_set: str,
    copies: Copies,
    frames_of: Callable[[str], Frames],
    cache: LatentCache,
    vae: FrozenVAE,
    out: Path,
    fps: float,
) -> None:
    """Write the samples that are nearest to a training clip, and that clip as the VAE decodes it, to `out`.

    SHEET has the sample above the training clip, PAIRS both side by side. name_of_set: what the samples are,
    such as `samples, 4 steps`. frames_of: the frames (T, H, W) of a sample, by its name. Raises InputError
    where the files cannot be written, StoreError for latents that are missing or damaged.
    """
    rows: list[Row] = []
    videos: dict[str, Frames] = {}
    length = copies.shape.num_latent_frames
    threshold = _threshold_in_words(copies)
    for name in copies.nearest_first()[:NUM_PAIRS]:
        match = copies.matches[name]
        record, start = match.place
        first = copies.frame_of(match.clip_start)
        sample = frames_of(name)[first : first + copies.num_frames]
        mean, _ = cache.read_windows(np.array([record.start + start]), length, with_std=False)
        clip = to_gray_levels(decode_latents(vae, mean[0], len(sample)))
        label = f"{name}, distance {match.distance:.2f}" + ", suspect copy" * bool(copies.is_suspect(name))
        named = f"{record.video_id} from frame {copies.frame_of(start)}"
        frame_step = copies.shape.timing.frame_step
        rows.append(Row(label, sample, clip, f"above: sample; below: {named}", frame_step=frame_step))
        videos |= {
            f"{name_of_set}: {label} ({threshold})": sample,
            f"training clip nearest to {name}: {named}": clip,
        }
    title = f"{name_of_set}, each above the training clip nearest to it; {threshold}"
    contact_sheet(rows, out / SHEET, title=title)
    window = window_of_all(videos.values())
    write_video(out / PAIRS, side_by_side(videos, num_columns=4, window=window), fps)


def _threshold_in_words(copies: Copies) -> str:
    """What is a suspect copy, and why that is uncertain or cannot be told."""
    doubt = copies.doubt()
    if not copies.can_be_told:
        return f"suspect copies: {doubt}"
    return f"suspect below {copies.threshold:.2f}" + (f", {doubt}" if doubt else "")
