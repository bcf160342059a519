"""`vidlat verify`: whether a cache is still what was written, and making it so again."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vidlat.store.repair import Outcome
    from vidlat.store.verify.problem import Problem

EXIT_PROBLEMS = 1


@click.command()
@click.argument("latents", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Put right what can be; videos are encoded again.")
@click.option("--vae", help="Where the VAE of the latents is, if not where it was. For --repair.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto. For --repair.")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON and nothing else.")
@click.pass_context
def verify(
    ctx: click.Context, /, latents: Path, repair: bool, vae: str | None, device: str, as_json: bool
) -> None:
    """Read every latent of a cache and print all that is wrong: where, kind, what.

    Checksums, missing chunks, NaN and infinity, records against arrays, statistics against latents,
    overlapping videos, damaged metadata and record files, foreign files, leftovers of kills.

    --repair encodes damaged videos again, from the files that were encoded and with the settings and the VAE
    of the cache, rewrites damaged metadata, sets damaged record files aside and removes leftovers. A video
    whose source is gone or has changed is told and left. Then it verifies what it repaired. Interrupted, the
    same command goes on. Foreign files are never touched.

    \b
    Examples:
      vidlat verify latents.zarr
      vidlat verify latents.zarr --repair

    \b
    Exit codes: 0 no problem (left), 1 problems (left), something lost, refused, or no cache there,
    130 interrupted.
    """
    from vidlat.store.verify.cache import count_hole_frames

    if repair:
        from vidlat.store.lease import refuse_if_held

        refuse_if_held(latents)  # before the long reading
    problems, num_videos = _watched(latents, show=not as_json)
    counts = {"num_videos": num_videos, "num_hole_frames": count_hole_frames(latents)}
    if not as_json:
        _print(problems, **counts)
    is_sound = not problems
    report: dict[str, object] = counts | {"problems": [dataclasses.asdict(problem) for problem in problems]}
    if repair and problems:
        outcomes, problems = _repair(latents, problems, vae, device, show=not as_json)
        report["outcomes"] = [dataclasses.asdict(outcome) for outcome in outcomes]
        report["problems_left"] = [dataclasses.asdict(problem) for problem in problems]
        is_sound = not problems and all(outcome.state == "repaired" for outcome in outcomes)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    if not is_sound:
        ctx.exit(EXIT_PROBLEMS)


def _watched(latents: Path, *, show: bool) -> tuple[list[Problem], int]:
    """The problems and the number of videos read, a bar moving meanwhile if it is to be shown."""
    from vidlat.cli.display import printable, progress_bar
    from vidlat.store.verify.cache import verify_cache

    num_read = 0
    with progress_bar("{task.fields[name]}") if show else nullcontext() as progress:
        task = progress.add_task("reading", total=None, name="") if progress else None

        def on_video(video_id: str, num_videos: int) -> None:
            nonlocal num_read
            num_read += 1
            if progress and task is not None:
                progress.update(task, completed=num_read, total=num_videos, name=printable(video_id))

        return list(verify_cache(latents, on_video)), num_read


def _repair(
    latents: Path, problems: list[Problem], vae: str | None, device: str, *, show: bool
) -> tuple[list[Outcome], list[Problem]]:
    """What became of each problem, and what is still wrong."""
    from vidlat.cli.display import progress_bar
    from vidlat.pipeline.repair_cache import repair_cache

    outcomes: list[Outcome] = []
    left: list[Problem] = []
    num_to_encode = num_encoded = num_frames = 0
    with (
        progress_bar("{task.fields[frames]} frames") if show else nullcontext() as progress,
        closing(repair_cache(latents, vae=vae, device=device, problems=problems)) as events,
    ):
        task = progress.add_task("encoding", total=None, frames=0) if progress else None
        try:
            for event in events:
                outcomes += event.outcomes
                left += event.problems_left
                num_to_encode += event.num_to_encode
                num_encoded += len(event.outcomes) if num_to_encode and not event.num_to_encode else 0
                num_frames += event.num_frames
                if progress and task is not None:
                    progress.update(task, total=num_to_encode, completed=num_encoded, frames=num_frames)
        except KeyboardInterrupt:
            click.echo(f"{num_encoded} videos were finished; the same command goes on from there.", err=True)
            raise
    if show:
        _print_outcomes("Repairs", outcomes)
        _print_left(left)
    return outcomes, left


def _print(problems: list[Problem], num_videos: int, num_hole_frames: int) -> None:
    from vidlat.cli.display import console, format_count

    _print_problems("Problems", problems)
    verdict = format_count(len(problems), "problem") if problems else "no problem"
    holes = f"{num_hole_frames} latent frames belong to no video"
    console.print(f"{format_count(num_videos, 'video')} read: {verdict} ({holes})")


def _print_problems(title: str, problems: list[Problem]) -> None:
    from vidlat.cli.display import print_table

    if problems:
        rows = [(p.where, p.kind, p.what) for p in problems]
        print_table(title, ("where", "kind", "what"), rows)


def _print_outcomes(title: str, outcomes: list[Outcome]) -> None:
    from vidlat.cli.display import print_table

    if outcomes:
        rows = [(outcome.where, outcome.state, outcome.what) for outcome in outcomes]
        print_table(title, ("where", "outcome", "what"), rows)


def _print_left(left: list[Problem]) -> None:
    from vidlat.cli.display import console, format_count

    _print_problems("Problems left", left)
    console.print(f"{format_count(len(left), 'problem')} left" if left else "no problem left")
