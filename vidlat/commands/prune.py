"""`vidlat prune`: removes videos whose source is gone, and frees the disk space."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import (
    console,
    echo,
    format_bytes,
    print_table,
    progress_bar,
    quoted,
)
from vidlat.errors import ExitCode, InputError
from vidlat.store.metadata import read_schema
from vidlat.store.pruning.plan import PrunePlan, plan_prune, vanished_videos
from vidlat.store.pruning.prune import PruneResult, prune as carry_out
from vidlat.store.reader import open_cache
from vidlat.store.storage.opening import local_cache, require_folder
from vidlat.store.writing.lease import refuse_if_held
from vidlat.store.writing.opening import open_writer
from vidlat.wording import format_count


def prune(latents: str | Path, yes: bool, drop: tuple[str, ...], keep_vanished: bool) -> ExitCode:
    """Print the plan, and with `yes` carry it out."""
    latents = require_folder(latents, "prune")
    vanished = _vanished(latents, requested=drop, keep=keep_vanished, refuse=yes)
    if not yes:
        refuse_if_held(latents)
        _print_plan(latents, plan_prune(latents, drop, vanished), vanished)
        return ExitCode.DONE
    try:
        result = _prune(latents, drop, vanished)
    except KeyboardInterrupt:
        echo("Interrupted: nothing is lost; run it again to finish.", err=True)
        return ExitCode.INTERRUPTED
    return ExitCode.REFUSED if result and result.damaged else ExitCode.DONE


def _vanished(latents: Path, *, requested: tuple[str, ...], keep: bool, refuse: bool) -> list[str]:
    """Videos to drop because their source is gone. None if all sources are; with `refuse`, InputError."""
    read_schema(local_cache(latents))
    if keep:
        return []
    vanished, num_videos = vanished_videos(latents)
    if not vanished or len(vanished) < num_videos:
        return vanished
    sources = "the 1 source does not exist" if num_videos == 1 else f"none of the {num_videos} sources exists"
    why = f"{latents}: {sources}: is their disk mounted?"
    if refuse and not requested:
        raise InputError(f"{why} To prune anyway, add --keep-vanished, or --drop for each video to remove")
    echo(f"{why} No video is removed for its missing source.", err=True)
    return []


def _prune(latents: Path, drop: tuple[str, ...], vanished: list[str]) -> PruneResult | None:
    with open_writer(latents, "vidlat prune") as writer:
        writer.roll_forward()
        plan = plan_prune(latents, drop, vanished)
        _print_plan(latents, plan, vanished, done=True)
        if plan.is_empty:
            return None
        with progress_bar() as progress:
            task = progress.add_task("pruning", total=len(plan.dead_shards) + plan.num_moved)
            result = carry_out(writer, plan, lambda: progress.advance(task))
    for video_id, what in result.damaged.items():
        console.print(
            f"{video_id}: damaged and left where it is, with its shards ({what}); "
            "`vidlat verify --repair` encodes it again; prune afterwards",
            soft_wrap=True,
        )
    freed = result.num_freed_bytes
    change = f"freed {format_bytes(freed)} of" if freed >= 0 else f"{format_bytes(-freed)} more are taken by"
    console.print(f"{change} {latents}", soft_wrap=True)
    return result


def _row_of_space(plan: PrunePlan) -> tuple[str, str, str]:
    what = "freed on disk" if plan.num_freed_bytes >= 0 else "more taken on disk, since files are rewritten"
    return what, "-", format_bytes(abs(plan.num_freed_bytes))


def _print_plan(latents: Path, plan: PrunePlan, vanished: list[str], *, done: bool = False) -> None:
    if plan.is_empty:
        console.print(f"Nothing to prune: everything in {latents} belongs to its videos.", soft_wrap=True)
        return
    if plan.drop:
        by_name = set(plan.drop) - set(vanished) | set(plan.excluded)
        reasons = ((video_id, "requested" if video_id in by_name else "vanished") for video_id in plan.drop)
        print_table("Videos to drop", ("video", "reason"), reasons)
        labelled = open_cache(latents, hold=False).annotations().keys() & set(plan.drop)
        if labelled:
            console.print(
                f"The labels of {format_count(len(labelled), 'video')} go with them, and a renamed file "
                f"does not inherit them: `vidlat ls {quoted(latents)} --json` shows them",
                soft_wrap=True,
            )
    if plan.excluded:
        console.print(
            "No encode adds the requested videos again, for which their ids are kept; "
            "`vidlat encode --restore VIDEO_ID` does",
            soft_wrap=True,
        )
    rows = [
        ("videos dropped", str(len(plan.drop)), "-"),
        ("shards without a video deleted", str(len(plan.dead_shards)), "-"),
        ("videos moved", str(plan.num_moved), format_bytes(plan.num_moved_bytes)),
        ("leftovers of kills and repairs deleted", str(len(plan.leftovers)), "-"),
        ("entries of replaced or removed videos erased", str(plan.num_old_rows), "-"),
        _row_of_space(plan),
    ]
    if plan.num_kept_bytes:
        rows.append(("kept by other caches, by hard links", "-", format_bytes(plan.num_kept_bytes)))
    print_table("Prune", ("what", "number", "size"), rows)
    if not done:
        console.print("nothing was changed; --yes does it")
