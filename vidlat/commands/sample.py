"""`vidlat sample`: new videos from a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidlat.commands.display import console, format_count, progress_bar
from vidlat.config import SampleConfig
from vidlat.errors import CopyError
from vidlat.sample import pictures
from vidlat.sample.folder import read_samples
from vidlat.sample.pictures import CONTACT_SHEET, MOVING, STILL
from vidlat.sample.videos import sample_videos


def sample(
    run_dir: str,
    out: Path,
    vae: str | None,
    latents: str | Path | None,
    settings: dict[str, Any],
) -> None:
    """Sample videos and report where they are."""
    config = SampleConfig.from_mapping(settings)
    before = set(out.glob("sample-*"))
    paths: list[Path] = []
    copied: CopyError | None = None
    with progress_bar() as progress:
        task = progress.add_task("sampling", total=config.num_samples)
        samples = sample_videos(
            run_dir,
            out,
            config,
            vae=vae,
            latents=latents,
            on_progress=lambda share: progress.advance(task, share),
        )
        try:
            for path in samples:
                paths.append(path)
            progress.update(task, completed=config.num_samples)  # a sum of parts has rounding errors
        except CopyError as error:
            copied = error
        except KeyboardInterrupt:
            progress.stop()
            if len(paths) < config.num_samples:
                kept = f"{len(paths)} of {format_count(config.num_samples, 'sample')} written"
                lost = ", those not yet compared with the training clips lost" if config.reject_copies else ""
                console.print(f"{kept}{lost}; the same command draws the others")
            raise
    already = before & set(paths)
    note = f", {len(already):,} of them already there" if already else ""
    console.print(f"{format_count(len(paths), 'video')} -> {out}{note}")
    if others := len(before - already):
        console.print(f"{format_count(others, 'earlier file')} named sample-* left in {out}")
    shown = f" (the first {pictures.MAX_ROWS})" if len(paths) > pictures.MAX_ROWS else ""
    if paths:
        console.print(f"contact sheet{shown} -> {out / CONTACT_SHEET}")
    if paths and config.sweep:
        shown = f" (the first {pictures.MAX_COLUMNS} seeds)" if config.num > pictures.MAX_COLUMNS else ""
        console.print(f"grid, a row a value, a column a seed{shown} -> {out / MOVING}, {out / STILL}")
    if paths and config.reject_copies:
        _report_rejected(out, paths, are_all_written=copied is None)
    if copied:
        raise copied


def _report_rejected(out: Path, paths: list[Path], *, are_all_written: bool) -> None:
    """How many attempts at these samples were suspect copies."""
    folder = read_samples(out)
    num = sum(folder.samples[path.name].num_rejected for path in paths) if folder else 0
    if num:
        console.print(f"{format_count(num, 'attempt')} rejected as suspect copies before these were drawn")
    elif are_all_written:
        console.print("no suspect copies were drawn")
