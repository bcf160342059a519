"""`vidlat encode`."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from vidlat.commands.display import (
    console,
    format_bytes,
    format_count,
    format_seconds,
    print_table,
    printable,
    progress_bar,
)
from vidlat.commands.dry_run import print_dry_run, shorten
from vidlat.config import EncodeConfig
from vidlat.errors import ExitCode, InputError
from vidlat.pipeline.encode_videos import PreparedEncode, prepare_encode
from vidlat.pipeline.measure import free_bytes, measure_size
from vidlat.types import FailureRecord

MOST_ROWS_SHOWN = 20
SECONDS_OF_HEADERS = 1.0
"""How long headers are read before an encode, to know whether the disk will do."""


def encode(
    inputs: tuple[str, ...],
    out: Path,
    retry_failed: bool,
    checksum: bool,
    dry_run: bool,
    labels: Path | None,
    settings: dict[str, Any],
) -> ExitCode:
    """Encode what is new, and report what failed."""
    config = EncodeConfig.from_mapping(settings)
    options = {"retry_failed": retry_failed, "checksum": checksum, "dry_run": dry_run, "labels": labels}
    prepared = _prepare(inputs, config, out, options)
    names = _shown_names(prepared)
    failures = list(prepared.plan.known_failures)
    if dry_run:
        print_dry_run(prepared, config)
    elif prepared.plan.num_videos:
        failures += _run(prepared, config, out, names)
    else:
        _say_nothing_to_do(prepared)
    _report_vanished(prepared)
    _report_unmatched(prepared, labels)
    if failures:
        _print_failures(names, failures, len(prepared.plan.known_failures), out)
        if len(failures) == prepared.plan.num_sources:
            raise InputError(f"no readable video in {', '.join(inputs)}: all {len(failures)} failed")
        return ExitCode.SOME_FAILED
    return ExitCode.DONE


def _prepare(
    inputs: tuple[str, ...], config: EncodeConfig, out: Path, options: dict[str, Any]
) -> PreparedEncode:
    """Plan the encode, a bar moving while files are compared by content."""
    num_compared = 0
    with progress_bar("{task.fields[name]}") as progress:
        task = progress.add_task("comparing files", total=None, name="")

        def on_hash(video_id: str, num_videos: int) -> None:
            nonlocal num_compared
            num_compared += 1
            progress.update(task, completed=num_compared, total=num_videos, name=printable(video_id))

        return prepare_encode(inputs, config, out, on_hash=on_hash, **options)


def _say_nothing_to_do(prepared: PreparedEncode) -> None:
    plan = prepared.plan
    is_there = "is" if plan.num_done == 1 else "are"
    count = format_count(plan.num_done, "video")
    console.print(f"Nothing to do: {count} {is_there} in {prepared.out} already.", soft_wrap=True)
    list(prepared.run())  # records where the files are now, and new labels
    if plan.annotated:
        console.print(f"New labels of {format_count(len(plan.annotated), 'video')} recorded.")
    if plan.moved:
        moved = format_count(len(plan.moved), "file")
        console.print(f"{moved} touched or moved since: recorded, so that they need not be compared again.")


def _report_vanished(prepared: PreparedEncode) -> None:
    vanished = prepared.plan.vanished
    if vanished:
        have, them = ("has lost its", "it") if len(vanished) == 1 else ("have lost their", "them")
        console.print(
            f"{format_count(len(vanished), 'video')} of the cache {have} source ({shorten(vanished)}); "
            f"`vidlat prune {prepared.out}` drops {them}",
            soft_wrap=True,
        )


def _report_unmatched(prepared: PreparedEncode, labels: Path | None) -> None:
    discovery = prepared.discovery
    sides = [
        (
            format_count(len(discovery.unmatched), "row") + f" of {labels} without a video",
            discovery.unmatched,
        ),
        (
            format_count(len(discovery.unlabelled), "video") + f" without a row in {labels}",
            discovery.unlabelled,
        ),
    ]
    for title, video_ids in sides:
        if video_ids:
            first = f", the first {MOST_ROWS_SHOWN}" if len(video_ids) > MOST_ROWS_SHOWN else ""
            print_table(title + first, ("video",), [(name,) for name in video_ids[:MOST_ROWS_SHOWN]])


def _shown_names(prepared: PreparedEncode) -> dict[str, str]:
    """What a hashed id is called in the terminal, which keeps nothing."""
    return {
        source.video_id: f"{source.video_id} {source.path}"
        for source in prepared.discovery.sources
        if source.hides_names
    }


def _run(
    prepared: PreparedEncode, config: EncodeConfig, out: Path, names: dict[str, str]
) -> list[FailureRecord]:
    plan = prepared.plan
    console.print(
        f"{format_count(plan.num_videos, 'video')} to encode, {plan.num_done} done already, "
        f"{prepared.discovery.num_ignored} other files ignored; VAE {config.vae} in "
        f"{prepared.job.precision}, "
        f"{config.scheduler or f'{prepared.num_workers} processes'}"
    )
    _warn_of_full_disk(prepared)
    failures: list[FailureRecord] = []
    warnings: list[tuple[str, str]] = []
    num_done = num_frames = num_safe_frames = 0
    began = time.monotonic()
    with (
        progress_bar("{task.fields[frames]} frames", "{task.fields[rate]:.1f} frames/s") as progress,
        closing(prepared.run()) as events,
    ):
        task = progress.add_task("starting", total=plan.num_videos, frames=0, rate=0.0)
        progress.start()
        try:
            for number, event in enumerate(events):
                if number == 0:  # the processes have started
                    began = time.monotonic()
                    progress.update(task, description="encoding")
                if event.taken_over_from:
                    dead = f"Going on after {event.taken_over_from}, which has died."
                    console.print(dead, soft_wrap=True, markup=False)
                failures += event.failures
                warnings += [
                    (names.get(record.video_id, record.video_id), warning)
                    for record in event.records
                    for warning in record.warnings
                ]
                num_done += len(event.records)
                num_safe_frames += sum(record.num_frames for record in event.records)
                num_frames += event.num_frames
                rate = num_frames / max(time.monotonic() - began, 1e-9)
                progress.update(task, completed=num_done + len(failures), frames=num_frames, rate=rate)
            seconds = time.monotonic() - began
        except KeyboardInterrupt:
            progress.stop()
            console.print(
                f"{num_done} videos were finished and are safe; the same command goes on from there."
            )
            raise
    count = f"{format_count(num_done, 'video')}, {format_count(num_safe_frames, 'frame')}"
    console.print(f"{count} in {format_seconds(seconds)} -> {out}")
    if warnings:
        _print_warnings(warnings)
    return failures


def _warn_of_full_disk(prepared: PreparedEncode) -> None:
    needed = measure_size(prepared, SECONDS_OF_HEADERS).latent_bytes
    free = free_bytes(prepared.out)
    if needed > free:
        console.print(
            f"Warning: the latents will take about {format_bytes(needed)}, and {format_bytes(free)} are "
            f"free on the disk of {prepared.out}",
            soft_wrap=True,
        )


def _print_warnings(warnings: list[tuple[str, str]]) -> None:
    first = f", the first {MOST_ROWS_SHOWN}" if len(warnings) > MOST_ROWS_SHOWN else ""
    title = format_count(len(warnings), "warning") + first
    print_table(title, ("video", "warning"), warnings[:MOST_ROWS_SHOWN])


def _print_failures(names: dict[str, str], failures: list[FailureRecord], num_known: int, out: Path) -> None:
    known = f", {num_known} of them known from before (--retry-failed tries again)" if num_known else ""
    rows = [(names.get(f.video_id, f.video_id), f.kind, f.reason) for f in failures]
    print_table(f"{format_count(len(failures), 'video')} failed{known}", ("video", "kind", "reason"), rows)
    console.print(f"Tracebacks: `vidlat ls {out} --failed --traceback`", soft_wrap=True)
