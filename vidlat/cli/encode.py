"""`vidlat encode`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidlat.cli.options import build_config, config_options
from vidlat.config import EncodeConfig
from vidlat.errors import InputError

if TYPE_CHECKING:
    from vidlat.pipeline.prepare import PreparedEncode
    from vidlat.types import FailureRecord

EXIT_SOME_FAILED = 3


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
        click.echo(f"Nothing to do: {prepared.plan.num_done} videos are in {out} already.")
    if failures:
        _print_failures(failures, len(prepared.plan.known_failures))
        if len(failures) == prepared.plan.num_sources:
            raise InputError(f"no readable video in {', '.join(inputs)}: all {len(failures)} failed")
        ctx.exit(EXIT_SOME_FAILED)


def _run(prepared: PreparedEncode, config: EncodeConfig, out: Path) -> list[FailureRecord]:
    from vidlat.cli.display import console, format_seconds, progress_bar
    from vidlat.pipeline.run import connect, run_encode

    plan = prepared.plan
    console.print(
        f"{plan.num_videos} videos to encode, {plan.num_done} done already, "
        f"{prepared.num_ignored} other files ignored; VAE {config.vae} in {prepared.job.precision}, "
        f"{config.scheduler or f'{prepared.num_workers} processes'}"
    )
    failures: list[FailureRecord] = []
    num_done = num_frames = num_safe_frames = 0
    with progress_bar("{task.fields[frames]} frames", "{task.fields[rate]:.1f} frames/s") as progress:
        task = progress.add_task("starting", total=plan.num_videos, frames=0, rate=0.0)
        try:
            with connect(config.scheduler, prepared.num_workers) as client:
                began = time.monotonic()
                progress.update(task, description="encoding")
                for event in run_encode(plan, prepared.job, out, client):
                    failures += event.failures
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
    console.print(f"{num_done} videos, {num_safe_frames} frames in {format_seconds(seconds)} -> {out}")
    return failures


def _print_failures(failures: list[FailureRecord], num_known: int) -> None:
    from vidlat.cli.display import print_table

    known = f", {num_known} of them known from before (--retry-failed tries again)" if num_known else ""
    rows = [(failure.video_id, failure.kind, failure.reason) for failure in failures]
    print_table(f"{len(failures)} videos failed{known}", ("video", "kind", "reason"), rows)
