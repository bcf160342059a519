"""`vidlat decode`: a cache back to video."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import console, print_table, progress_bar
from vidlat.errors import ExitCode
from vidlat.pipeline.decode_videos import decode_videos
from vidlat.store.reader import open_cache
from vidlat.wording import format_count


def decode(
    latents: str | Path,
    out: Path,
    video_ids: tuple[str, ...],
    with_source: bool,
    vae: str | None,
    device: str,
) -> ExitCode:
    """Write a video for each cached one, or for those that are named, and report what failed."""
    chosen = list(dict.fromkeys(video_ids)) or None
    num_videos = len(chosen or open_cache(latents))
    before = set(out.rglob("*.mp4"))
    already = num_written = 0
    failures: list[tuple[str, str]] = []
    outcomes = decode_videos(latents, out, video_ids=chosen, with_source=with_source, vae=vae, device=device)
    with progress_bar("{task.fields[name]}") as progress:
        task = progress.add_task("decoding", total=num_videos, name="")
        try:
            for video_id, outcome in outcomes:
                progress.update(task, advance=1, name=video_id)
                if isinstance(outcome, Path):
                    already += outcome in before
                    num_written += 1
                else:
                    failures.append((video_id, str(outcome)))
        except KeyboardInterrupt:
            progress.stop()
            console.print(
                f"{num_written:,} of {format_count(num_videos, 'video')} written; the same command continues"
            )
            raise
    note = f", {already:,} of them already there" if already else ""
    console.print(f"{format_count(num_videos - len(failures), 'video')} -> {out}{note}")
    if failures:
        print_table(f"{format_count(len(failures), 'video')} failed", ("video", "reason"), failures)
        return ExitCode.SOME_FAILED
    return ExitCode.DONE
