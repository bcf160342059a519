"""`vidlat pull`: fetches a published cache into a folder."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import Stages, console, echo, format_bytes, progress_bar, quoted
from vidlat.commands.transfer import COLUMN, Transferred
from vidlat.errors import ExitCode
from vidlat.store.copying.pull import pull_cache
from vidlat.store.storage.opening import open_published
from vidlat.wording import format_count


def pull(address: str, out: Path) -> ExitCode:
    """Fetch the cache at the address, verify it, and say what came."""
    source, transferred = open_published(address), Transferred()
    try:
        with progress_bar(COLUMN) as progress:
            num_verified, stages = 0, Stages(progress)

            def on_video(video_id: str, num_videos: int) -> None:
                nonlocal num_verified
                num_verified += 1
                stages.show("verifying videos", num_verified, num_videos, name=video_id)

            transferred.follow(pull_cache(source, out, on_video), stages, "pulling files")
    except KeyboardInterrupt:
        files = format_count(transferred.num_files, "file")
        echo(f"Interrupted: {files} fetched; the same command continues.", err=True)
        return ExitCode.INTERRUPTED
    _tell_pulled(transferred, out)
    return ExitCode.DONE


def _tell_pulled(transferred: Transferred, out: Path) -> None:
    plan = transferred.plan
    if not plan:
        console.print(f"{out}: up to date", soft_wrap=True)
        return
    files, size = format_count(transferred.num_files, "file"), format_bytes(transferred.num_bytes)
    there = f", {plan.num_there} there already" if plan.num_there else ""
    text = f"{out}: {files} of {size} fetched{there}, and all verified; next: vidlat info {quoted(out)}"
    console.print(text, soft_wrap=True)
