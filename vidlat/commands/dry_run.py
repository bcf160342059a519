"""`vidlat encode --dry-run`: what an encode would take, as a table."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import (
    console,
    format_bytes,
    format_count,
    format_seconds,
    print_table,
    printable,
)
from vidlat.config import EncodeConfig
from vidlat.pipeline.dask_cluster import scratch_folder
from vidlat.pipeline.encode_videos import PreparedEncode
from vidlat.pipeline.estimate import EncodeEstimate, estimate_time
from vidlat.pipeline.measure import (
    decoding_overlaps,
    free_bytes,
    local_processes,
    measure_size,
    measure_speed,
)
from vidlat.pipeline.plan import EncodePlan

Rows = list[tuple[str, str]]

MOST_NAMES_SHOWN = 3


def print_dry_run(prepared: PreparedEncode, config: EncodeConfig) -> None:
    """Print the plan and, where there is something to do, its size and about the time it takes."""
    rows = [*_rows_of_plan(prepared.plan), ("other files, ignored", str(prepared.discovery.num_ignored))]
    if prepared.plan.num_videos:
        size = measure_size(prepared)
        rows += _rows_of_size(size, prepared.plan.num_videos)
        rows += _rows_of_disk(prepared, config, size)
        rows += _rows_of_time(prepared, config, size)
    print_table(f"Dry run: nothing is written to {prepared.out}", ("what", "how much"), rows)
    if prepared.plan.num_videos:
        _warn_of_full_disks(prepared, config, size)


def shorten(names: tuple[str, ...]) -> str:
    """The first few names of many."""
    return printable(", ".join(names[:MOST_NAMES_SHOWN]) + ", ..." * (len(names) > MOST_NAMES_SHOWN))


def _rows_of_plan(plan: EncodePlan) -> Rows:
    return [
        ("videos to encode", str(plan.num_videos)),
        ("done already", str(plan.num_done)),
        ("of these touched or moved since", str(len(plan.moved))),
        ("of these with new labels", str(len(plan.annotated))),
        ("failed before", str(len(plan.known_failures))),
        ("lost their source", str(len(plan.vanished))),
    ]


def _rows_of_size(size: EncodeEstimate, num_videos: int) -> Rows:
    length = f"about {format_seconds(size.seconds)} of video" if size.seconds else "no file states it"
    is_part = size.num_headers < num_videos
    source = f", by {size.num_headers} of {num_videos} headers" if is_part else ""
    rows = [("frames to encode", f"about {size.num_frames}{source}"), ("their length", length)]
    if size.unknown:
        count = format_count(len(size.unknown), "video")
        rows.append(("not known", f"{count} without a frame count, left out here: {shorten(size.unknown)}"))
    if size.broken:
        count = format_count(len(size.broken), "video")
        rows.append(("will fail", f"{count} without a frame that can be read: {shorten(size.broken)}"))
    return rows


def _rows_of_disk(prepared: PreparedEncode, config: EncodeConfig, size: EncodeEstimate) -> Rows:
    rows = [
        (name, f"about {format_bytes(needed)}; {format_bytes(free_bytes(folder))} free on that disk")
        for name, needed, folder in _disks(prepared, config, size)
    ]
    if config.scheduler:
        rows.append(("scratch of all workers", f"up to {format_bytes(size.scratch_bytes)}"))
    return rows


def _warn_of_full_disks(prepared: PreparedEncode, config: EncodeConfig, size: EncodeEstimate) -> None:
    for name, needed, folder in _disks(prepared, config, size):
        free = free_bytes(folder)
        if needed > free:
            console.print(
                f"Warning: not enough disk for {name}: about {format_bytes(needed)} needed, "
                f"{format_bytes(free)} free at {folder}",
                soft_wrap=True,
            )


def _disks(
    prepared: PreparedEncode, config: EncodeConfig, size: EncodeEstimate
) -> list[tuple[str, int, Path]]:
    """What is written, how much of it, and where; the scratch of a scheduler's workers is theirs."""
    latents = ("latents", size.latent_bytes, prepared.out)
    scratch = ("scratch at a time", size.scratch_bytes, scratch_folder())
    return [latents] if config.scheduler else [latents, scratch]


def _rows_of_time(prepared: PreparedEncode, config: EncodeConfig, size: EncodeEstimate) -> Rows:
    speed = measure_speed(prepared)
    if speed is None:
        return [("time", "not known: of the videos tried none decodes")]
    num_processes = local_processes(prepared)
    time = estimate_time(size, speed, num_processes, is_overlapping=decoding_overlaps(prepared))
    frames_per_call = prepared.job.batch * prepared.job.stack
    where = f"in {num_processes} processes" if num_processes > 1 else "in 1 process"
    cluster = " of this machine, not of the scheduler's" if config.scheduler else ""
    share = 100 * time.vae_seconds / time.seconds if time.seconds else 0
    return [
        ("decoding", f"about {1 / speed.frame_seconds:.0f} frames/s per process"),
        ("VAE", f"about {frames_per_call / speed.call_seconds:.1f} frames/s per process"),
        ("time", f"about {format_seconds(time.seconds)} {where}{cluster}; {share:.0f} % of it in the VAE"),
    ]
