"""`vidlat encode --dry-run`: what an encode would do and need, as a table."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import (
    console,
    format_bytes,
    format_names,
    print_table,
)
from vidlat.config import EncodeConfig
from vidlat.errors import InputError
from vidlat.paths import is_address, local_path
from vidlat.pipeline.dask_cluster import scratch_folder
from vidlat.pipeline.encode_videos import PreparedEncode
from vidlat.pipeline.estimate import EncodeEstimate, estimate_time
from vidlat.pipeline.measure import headers_of, measure_size, measure_speed
from vidlat.pipeline.plan import EncodePlan
from vidlat.store.storage.filesystem import free_bytes
from vidlat.wording import format_count, format_seconds

Rows = list[tuple[str, str]]


def print_dry_run(prepared: PreparedEncode, config: EncodeConfig) -> None:
    """Print the plan and, if there is something to encode, estimates of size and time."""
    rows = [*_rows_of_plan(prepared.plan), ("other files, ignored", str(prepared.discovery.num_ignored))]
    if config.exclude:
        rows.append(("excluded", format_count(prepared.discovery.num_excluded, "file")))
    if config.min_frames > 1:
        rows.append((f"of fewer than {config.min_frames} frames", str(len(prepared.short))))
    if prepared.dropped:
        rows.append(("dropped before", str(len(prepared.dropped))))
    if prepared.plan.num_videos:
        size = measure_size(prepared, headers_of(prepared))
        rows += _rows_of_size(size, prepared.plan.num_videos)
        rows += _rows_of_disk(prepared, config, size)
        rows += _rows_of_time(prepared, size)
    print_table(f"Dry run: nothing is written to {prepared.out}", ("what", "how much"), rows)
    if prepared.plan.num_videos:
        _warn_of_full_disks(prepared, config, size)


def _rows_of_plan(plan: EncodePlan) -> Rows:
    return [
        ("videos to encode", str(plan.num_videos)),
        ("already done", str(plan.num_done)),
        ("of these touched or moved", str(len(plan.moved))),
        ("of these with new labels", str(len(plan.annotated))),
        ("failed before", str(len(plan.known_failures))),
        ("without their source", str(len(plan.vanished))),
    ]


def _rows_of_size(size: EncodeEstimate, num_videos: int) -> Rows:
    length = f"about {format_seconds(size.seconds)} of video" if size.seconds else "not stated by any file"
    is_part = size.num_headers < num_videos
    source = f", from {size.num_headers} of {num_videos} headers" if is_part else ""
    per_frame = f", {size.num_latent_frames / size.num_frames:.3g} per frame" if size.num_frames else ""
    rows = [
        ("frames to encode", f"about {size.num_frames}{source}"),
        ("their duration", length),
        ("latent frames", f"about {size.num_latent_frames}{per_frame}"),
    ]
    if size.unknown:
        count = format_count(len(size.unknown), "video")
        rows.append(
            ("unknown", f"{count} without a frame count, not included here: {format_names(size.unknown)}")
        )
    if size.broken:
        count = format_count(len(size.broken), "video")
        rows.append(("will fail", f"{count} without a readable frame: {format_names(size.broken)}"))
    return rows


def _rows_of_disk(prepared: PreparedEncode, config: EncodeConfig, size: EncodeEstimate) -> Rows:
    rows = [
        (name, f"about {format_bytes(needed)}; {format_bytes(free_bytes(folder))} free on that disk")
        for name, needed, folder in _disks(prepared, config, size)
    ]
    if is_address(prepared.out):
        rows.insert(0, ("latents", f"about {format_bytes(size.latent_bytes)}"))
    if config.scheduler:
        rows.append(("scratch of all workers", f"up to {format_bytes(size.scratch_bytes)}"))
    return rows


def _warn_of_full_disks(prepared: PreparedEncode, config: EncodeConfig, size: EncodeEstimate) -> None:
    for name, needed, folder in _disks(prepared, config, size):
        free = free_bytes(folder)
        if needed > free:
            console.print(
                f"Warning: not enough disk space for {name}: about {format_bytes(needed)} needed, "
                f"{format_bytes(free)} free at {folder}",
                soft_wrap=True,
            )


def _disks(
    prepared: PreparedEncode, config: EncodeConfig, size: EncodeEstimate
) -> list[tuple[str, int, Path]]:
    """What is written to disks here, how much, and where. Workers of a scheduler have their own scratch."""
    out = prepared.out
    latents = [] if is_address(out) else [("latents", size.latent_bytes, local_path(out))]
    scratch = [] if config.scheduler else [("scratch at any time", size.scratch_bytes, scratch_folder())]
    return [*latents, *scratch]


def _rows_of_time(prepared: PreparedEncode, size: EncodeEstimate) -> Rows:
    try:
        speed = measure_speed(prepared)
    except InputError as error:
        return [("time", f"unknown: {error}")]
    if speed is None:
        return [("time", "unknown: none of the videos that were tried decodes")]
    time = estimate_time(size, speed)
    frames_per_call = prepared.job.batch * prepared.schema.timing.frame_step
    where = f"in {speed.num_processes} processes" if speed.num_processes > 1 else "in 1 process"
    cluster = " of the scheduler" if prepared.scheduler else ""
    share = 100 * time.vae_seconds / time.seconds if time.seconds else 0
    return [
        ("decoding", f"about {speed.num_readers / speed.frame_seconds:.0f} frames/s per process"),
        ("VAE", f"about {frames_per_call / speed.call_seconds:.1f} frames/s per process"),
        (
            "time",
            f"about {format_seconds(time.seconds)} {where}{cluster}: {format_seconds(time.start_seconds)} to "
            f"start, {share:.0f} % of it in the VAE",
        ),
    ]
