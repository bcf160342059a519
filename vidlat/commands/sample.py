"""`vidlat sample`: new videos from a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidlat.commands.display import console, progress_bar
from vidlat.config import SampleConfig
from vidlat.config.sample import MAX_SWEPT
from vidlat.errors import CopyError
from vidlat.sample import pictures
from vidlat.sample.folder import read_samples
from vidlat.sample.pictures import CONTACT_SHEET, MOVING, STILL
from vidlat.sample.videos import sample_videos
from vidlat.wording import format_count


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
    if paths:
        _report_pictures(out, config, len(paths))
    if paths and config.reject_copies:
        _report_rejected(out, paths, are_all_written=copied is None)
    if copied:
        raise copied


def _report_pictures(out: Path, config: SampleConfig, num_written: int) -> None:
    """Where the pictures are, and which samples they show where they cannot show all."""
    folder = read_samples(out)
    held = folder.held().values() if folder and config.sweep else ()
    first = f" (the first {pictures.MAX_ROWS})" if max(len(held), num_written) > pictures.MAX_ROWS else ""
    console.print(f"contact sheet{first} -> {out / CONTACT_SHEET}")
    if config.sweep:
        num_values = len({sample.labels.get(config.swept[0]) for sample in held})
        num_seeds = len({sample.seed for sample in held})
        limits = (num_values, MAX_SWEPT, "values"), (num_seeds, pictures.MAX_COLUMNS, "seeds")
        firsts = [f"the first {limit} {noun}" for number, limit, noun in limits if number > limit]
        first = f" ({' and '.join(firsts)})" if firsts else ""
        console.print(f"grid, a row a value, a column a seed{first} -> {out / MOVING}, {out / STILL}")


def _report_rejected(out: Path, paths: list[Path], *, are_all_written: bool) -> None:
    """How many attempts at these samples were suspect copies."""
    folder = read_samples(out)
    num = sum(folder.samples[path.name].num_rejected for path in paths) if folder else 0
    if num:
        console.print(f"{format_count(num, 'attempt')} rejected as suspect copies before these were drawn")
    elif are_all_written:
        console.print("no suspect copies were drawn")
