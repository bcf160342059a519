"""`vidlat encode`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidlat.cli.options import EXIT_SOME_FAILED, build_config, config_options
from vidlat.config import EncodeConfig
from vidlat.errors import InputError

if TYPE_CHECKING:
    from vidlat.pipeline.prepare import PreparedEncode
    from vidlat.types import FailureRecord

MOST_WARNINGS_SHOWN = 20


@click.command()
@click.option(
    "--input", "inputs", multiple=True, required=True, help="File, folder or glob; may be repeated."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The cache to make or to add to.")
@click.option(
    "--retry-failed", is_flag=True, help="Try videos again that failed before and have not changed."
)
@config_options(EncodeConfig, "encode")
@click.pass_context
def encode(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    out: Path,
    retry_failed: bool,
    config_file: Path | None,
    **flags: Any,
) -> None:
    """Encode videos into a cache of latents; run again, it adds only what is new.

    \b
    Example:
      vidlat encode --input videos/ --out latents.zarr --vae tiny --size 128

    \b
    Exit codes: 0 all done, 1 refused, 2 wrong flags, 3 some videos failed, 130 interrupted.
    """
    config = build_config(EncodeConfig, "encode", config_file, flags)
    from vidlat.pipeline.prepare import prepare_encode

    prepared = prepare_encode(inputs, config, out, retry_failed=retry_failed)
    failures = list(prepared.plan.known_failures)
    if prepared.plan.num_videos:
        failures += _run(prepared, config, out)
    else:
        from vidlat.cli.display import console, format_count

        is_there = "is" if prepared.plan.num_done == 1 else "are"
        count = format_count(prepared.plan.num_done, "video")
        console.print(f"Nothing to do: {count} {is_there} in {out} already.", soft_wrap=True)
    if failures:
        _print_failures(failures, len(prepared.plan.known_failures))
        if len(failures) == prepared.plan.num_sources:
            raise InputError(f"no readable video in {', '.join(inputs)}: all {len(failures)} failed")
        ctx.exit(EXIT_SOME_FAILED)


def _run(prepared: PreparedEncode, config: EncodeConfig, out: Path) -> list[FailureRecord]:
    from vidlat.cli.display import console, format_count, format_seconds, progress_bar
    from vidlat.pipeline.run import connect, run_encode

    plan = prepared.plan
    console.print(
        f"{format_count(plan.num_videos, 'video')} to encode, {plan.num_done} done already, "
        f"{prepared.num_ignored} other files ignored; VAE {config.vae} in {prepared.job.precision}, "
        f"{config.scheduler or f'{prepared.num_workers} processes'}"
    )
    failures: list[FailureRecord] = []
    warnings: list[tuple[str, str]] = []
    num_done = num_frames = num_safe_frames = 0
    with progress_bar("{task.fields[frames]} frames", "{task.fields[rate]:.1f} frames/s") as progress:
        task = progress.add_task("starting", total=plan.num_videos, frames=0, rate=0.0)
        progress.start()
        try:
            # The cluster first: where there is none, no cache is left behind.
            with connect(config.scheduler, prepared.num_workers) as client, prepared.open_writer() as writer:
                began = time.monotonic()
                progress.update(task, description="encoding")
                for event in run_encode(plan, prepared.job, writer, client):
                    failures += event.failures
                    warnings += [(r.video_id, warning) for r in event.records for warning in r.warnings]
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


def _print_warnings(warnings: list[tuple[str, str]]) -> None:
    from vidlat.cli.display import format_count, print_table

    first = f", the first {MOST_WARNINGS_SHOWN}" if len(warnings) > MOST_WARNINGS_SHOWN else ""
    title = format_count(len(warnings), "warning") + first
    print_table(title, ("video", "warning"), warnings[:MOST_WARNINGS_SHOWN])


def _print_failures(failures: list[FailureRecord], num_known: int) -> None:
    from vidlat.cli.display import format_count, print_table

    known = f", {num_known} of them known from before (--retry-failed tries again)" if num_known else ""
    rows = [(failure.video_id, failure.kind, failure.reason) for failure in failures]
    print_table(f"{format_count(len(failures), 'video')} failed{known}", ("video", "kind", "reason"), rows)
