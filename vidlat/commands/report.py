"""`vidlat report`: a page about a cache."""

from __future__ import annotations

from pathlib import Path

import click

from vidlat.commands.display import (
    Stages,
    console,
    format_bytes,
    print_table,
    progress_bar,
    quoted,
)
from vidlat.errors import ExitCode
from vidlat.report.cache import report_cache
from vidlat.wording import format_count


def report(
    latents: str | Path,
    out: Path,
    inputs: tuple[str, ...],
    max_videos: int | None,
    vae: str | None,
    device: str,
) -> ExitCode:
    """Write the page, and tell which videos are not in all of it."""
    if max_videos and not inputs:
        raise click.UsageError("--max-videos goes with --input")
    steps = report_cache(latents, out, inputs=inputs, max_videos=max_videos or 0, vae=vae, device=device)
    failures: dict[str, str] = {}
    with progress_bar("{task.fields[name]}") as progress:
        stages = Stages(progress)
        for step in steps:
            stages.show(step.doing, step.num_done, step.num_total, name=step.video_id)
            if step.failure:
                failures[step.video_id] = step.failure
    if failures:
        title = f"{format_count(len(failures), 'video')} not in all of the report"
        print_table(title, ("video", "reason"), list(failures.items()))
    console.print(f"report, {format_bytes(out.stat().st_size)} -> {quoted(out)}", soft_wrap=True)
    return ExitCode.SOME_FAILED if failures else ExitCode.DONE
