"""Some videos of a cache to look at: decoded frames below those of their sources, or beside them, moving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidlat.encode.vae import FrozenVAE
from vidlat.errors import InputError, StoreError
from vidlat.evaluate.moving_preview import Moving, read_moving, write_moving
from vidlat.evaluate.quality import psnr_of
from vidlat.pipeline.decode_videos import decode_latents
from vidlat.pipeline.source_frames import source_frames
from vidlat.store.reader import LatentCache
from vidlat.store.storage.interface import Unreachable
from vidlat.types import VideoRecord
from vidlat.video.contact_sheet import Row, contact_sheet, evenly_spaced, frames_to_show

Frames = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a preview shows.

    shown: ids of the videos. without_source: by id, why a video is shown without its source. damaged: by id,
    why a video is left out.
    """

    shown: list[str]
    without_source: dict[str, str]
    damaged: dict[str, str]


def write_preview(
    cache: LatentCache,
    vae: FrozenVAE,
    out: Path | None,
    num_videos: int = 6,
    on_video: Callable[[str], None] = lambda _: None,
    *,
    video: Path | None = None,
) -> Preview:
    """Show up to `num_videos` videos of a cache, evenly spread over the sorted ids.

    out: a PNG to write, for which only the stacks of the frames shown are decoded. video: an MP4 to write,
    with the first MOST_FRAMES frames. on_video: called with the id of each video when it is done. Raises
    InputError for an empty cache, StoreError if no video can be decoded.
    """
    records = list(cache.records().values())
    if not records:
        raise InputError(f"{cache.where}: holds no video to show")
    rows: list[Row] = []
    moving: list[Moving] = []
    preview = Preview(shown=[], without_source={}, damaged={})
    for record in (records[index] for index in evenly_spaced(len(records), num_videos)):
        try:
            row = [_row(cache, vae, record, preview.without_source)] if out else []
            clip = [read_moving(cache, vae, record, preview.without_source)] if video else []
        except StoreError as error:
            preview.damaged[record.video_id] = str(error)
        else:
            rows, moving = rows + row, moving + clip
            preview.shown.append(record.video_id)
        on_video(record.video_id)
    if not preview.shown:
        raise StoreError(f"{cache.where}: {next(iter(preview.damaged.values()))}")
    if out:
        contact_sheet(rows, out, one_window=False)
    if video:
        write_moving(moving, video)
    return preview


def _row(cache: LatentCache, vae: FrozenVAE, record: VideoRecord, without_source: dict[str, str]) -> Row:
    frame_step = cache.schema.timing.frame_step
    numbers = frames_to_show(record.num_frames, frame_step)
    decoded = np.stack(list(_decoded(cache, vae, record, numbers)))
    facts = f"{record.num_frames} frames" if record.num_frames > 1 else "1 frame"
    facts += f", {record.fps:.4g} fps" if record.fps else ""
    try:
        frames = {
            number: frame for number, frame in enumerate(source_frames(cache, record)) if number in numbers
        }
    except (InputError, Unreachable) as error:
        without_source[record.video_id] = str(error)
        note = f"{facts}; decoded only, no source"
        return Row(record.video_id, decoded, note=note, numbers=numbers, frame_step=frame_step)
    source = np.stack([frames[number] for number in numbers])
    psnr = psnr_of(float(np.square(source.astype(np.float64) - decoded).mean()))
    note = f"{facts}, PSNR {psnr:.1f} dB; source above, decoded below"
    return Row(record.video_id, source, decoded, note, numbers, frame_step)


def _decoded(
    cache: LatentCache, vae: FrozenVAE, record: VideoRecord, numbers: Sequence[int]
) -> Iterator[Frames]:
    """Decoded frames (H, W) by number, in order, each from all calls that hold it."""
    timing, last_call = vae.timing, vae.timing.num_calls(record.num_frames) - 1
    for number in numbers:
        last = min(number // timing.frame_step, last_call)
        first = max(0, -(-(number - timing.frames_per_call + 1) // timing.frame_step))
        start = record.start + first * timing.latent_step
        length = (last - first) * timing.latent_step + timing.latents_per_call
        mean, _ = cache.read_windows(np.array([start]), length, with_std=False)
        num_before = number - first * timing.frame_step
        yield decode_latents(vae, mean[0], num_before + 1)[-1]
