"""`vidlat verify`: checks a cache against its records, and repairs it."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

from vidlat.commands.display import (
    console,
    echo,
    echo_json,
    format_bytes,
    print_table,
    progress_bar,
)
from vidlat.errors import ExitCode
from vidlat.store.storage.opening import require_folder
from vidlat.store.verify.cache import measure_unused_space, verify_cache
from vidlat.store.verify.problem import Problem
from vidlat.store.verify.repair_files import Outcome
from vidlat.store.writing.lease import refuse_if_held
from vidlat.wording import format_count


def verify(latents: str | Path, repair: bool, vae: str | None, device: str, as_json: bool) -> ExitCode:
    """Print every problem of a cache, and with `repair` the outcome of each repair."""
    if repair:
        refuse_if_held(require_folder(latents, "repair"))  # before everything is read, which takes long
    problems, num_videos = _read(latents, show=not as_json)
    unused = measure_unused_space(latents)
    if not as_json:
        _print_problems("Problems", problems)
        verdict = format_count(len(problems), "problem") if problems else "no problem"
        console.print(f"{format_count(num_videos, 'video')} read: {verdict}")
        if unused.num_dead_shards:
            files = format_count(unused.num_dead_shards, "shard file")
            size = format_bytes(unused.num_dead_bytes)
            advice = ", perhaps of a lost record" if problems else ": `vidlat prune` frees them"
            console.print(f"{size} in {files} are of no recorded video{advice}")
    is_sound = not problems
    report: dict[str, object] = {
        "num_videos": num_videos,
        **dataclasses.asdict(unused),
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }
    if repair and problems:
        outcomes, problems = _repair(latents, problems, vae, device, show=not as_json)
        report["outcomes"] = [dataclasses.asdict(outcome) for outcome in outcomes]
        report["problems_left"] = [dataclasses.asdict(problem) for problem in problems]
        is_sound = not problems and all(outcome.state == "repaired" for outcome in outcomes)
    if as_json:
        echo_json(report)
    return ExitCode.DONE if is_sound else ExitCode.REFUSED


def _read(latents: str | Path, *, show: bool) -> tuple[list[Problem], int]:
    """The problems and the number of videos read; with a progress bar if `show`."""
    num_read = 0
    with progress_bar("{task.fields[name]}", show=show) as progress:
        task = progress.add_task("reading", total=None, name="")

        def on_video(video_id: str, num_videos: int) -> None:
            nonlocal num_read
            num_read += 1
            progress.update(task, completed=num_read, total=num_videos, name=video_id)

        return list(verify_cache(latents, on_video)), num_read


def _repair(
    latents: str | Path, problems: list[Problem], vae: str | None, device: str, *, show: bool
) -> tuple[list[Outcome], list[Problem]]:
    """The outcome of each repair, and the problems left."""
    from vidlat.pipeline.repair_cache import repair_cache  # loads torch, which verifying alone does not need

    outcomes: list[Outcome] = []
    left: list[Problem] = []
    num_to_encode = num_encoded = num_frames = 0
    with (
        progress_bar("{task.fields[frames]} frames", show=show) as progress,
        closing(repair_cache(latents, vae=vae, device=device, problems=problems)) as events,
    ):
        task = progress.add_task("repairing", total=None, frames=0)
        try:
            for event in events:
                outcomes += event.outcomes
                left += event.problems_left
                num_to_encode += event.num_to_encode
                num_encoded += len(event.outcomes) if num_to_encode and not event.num_to_encode else 0
                num_frames += event.num_frames
                if num_to_encode:
                    progress.update(task, total=num_to_encode, completed=num_encoded, frames=num_frames)
        except KeyboardInterrupt:
            echo(f"{num_encoded} videos are repaired; the same command continues.", err=True)
            raise
    if show and outcomes:
        print_table("Repairs", ("where", "outcome", "what"), [(o.where, o.state, o.what) for o in outcomes])
    if show:
        _print_problems("Problems left", left)
        console.print(f"{format_count(len(left), 'problem')} left" if left else "no problem left")
    return outcomes, left


def _print_problems(title: str, problems: list[Problem]) -> None:
    if problems:
        print_table(title, ("where", "kind", "what"), [(p.where, p.kind, p.what) for p in problems])
