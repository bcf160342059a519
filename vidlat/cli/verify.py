"""`vidlat verify`: whether a cache is still what was written."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vidlat.store.verify import Problem

EXIT_PROBLEMS = 1


@click.command()
@click.argument("latents", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON and nothing else.")
@click.pass_context
def verify(ctx: click.Context, latents: Path, as_json: bool) -> None:
    """Read every latent of a cache and print all that is wrong: where, kind, what.

    Checksums, missing chunks, NaN and infinity, records against arrays, statistics against latents,
    overlapping videos, damaged metadata and record files, foreign files, leftovers of kills.

    \b
    Example:
      vidlat verify latents.zarr

    \b
    Exit codes: 0 no problem, 1 problems found or no cache there.
    """
    from vidlat.store.verify import count_hole_frames

    problems, num_videos = _watched(latents, show=not as_json)
    num_hole_frames = count_hole_frames(latents)
    if as_json:
        counts = {"num_videos": num_videos, "num_hole_frames": num_hole_frames}
        found = [dataclasses.asdict(problem) for problem in problems]
        click.echo(json.dumps(counts | {"problems": found}, indent=2))
    else:
        _print(problems, num_videos, num_hole_frames)
    if problems:
        ctx.exit(EXIT_PROBLEMS)


def _watched(latents: Path, *, show: bool) -> tuple[list[Problem], int]:
    """The problems and the number of videos read, a bar moving meanwhile if it is to be shown."""
    from vidlat.cli.display import printable, progress_bar
    from vidlat.store.verify import verify_cache

    num_read = 0
    with progress_bar("{task.fields[name]}") if show else nullcontext() as progress:
        task = progress.add_task("reading", total=None, name="") if progress else None

        def on_video(video_id: str, num_videos: int) -> None:
            nonlocal num_read
            num_read += 1
            if progress and task is not None:
                progress.update(task, completed=num_read, total=num_videos, name=printable(video_id))

        return list(verify_cache(latents, on_video)), num_read


def _print(problems: list[Problem], num_videos: int, num_hole_frames: int) -> None:
    from vidlat.cli.display import console, format_count, print_table

    if problems:
        rows = [(p.where, p.kind, p.what) for p in problems]
        print_table("Problems", ("where", "kind", "what"), rows)
    verdict = format_count(len(problems), "problem") if problems else "no problem"
    holes = f"{num_hole_frames} latent frames belong to no video"
    console.print(f"{format_count(num_videos, 'video')} read: {verdict} ({holes})")
