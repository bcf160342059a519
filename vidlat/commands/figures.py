"""Figures of quality as cells of a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vidlat.commands.display import console, format_count, quoted
from vidlat.errors import ConfigError
from vidlat.evaluate.motion import Motion
from vidlat.evaluate.quality import Summary, VideoQuality
from vidlat.video.writer import appearing_whole

FIGURES = ("MSE", "PSNR dB", "SSIM", "sharp", "motion in", "border", "corr")
"""Columns. motion in, border: energy ratios of changes inside stacks and at their borders."""


def figures(quality: VideoQuality | Summary, motion: Motion) -> tuple[str, ...]:
    """In the order of FIGURES."""
    ratios = quality.sharpness, motion.energy_inside, motion.energy_at_borders, motion.correlation
    return f"{quality.mse:.1e}", f"{quality.psnr:.2f}", f"{quality.ssim:.3f}", *map(number, ratios)


def number(value: float | None) -> str:
    """With two decimals; a dash for none."""
    return "-" if value is None else f"{value:.2f}"


def require_json(path: Path | None) -> None:
    """Raise ConfigError for a name that is not that of a JSON file: a clip of that name would be replaced."""
    if path and path.suffix.lower() != ".json":
        raise ConfigError(f"--json {path}: figures are written as .json; give such a name")


def write_figures(path: Path, values: dict[str, Any]) -> None:
    """Write all figures as JSON, whole or not at all; raises InputError where the disk takes no more."""
    with appearing_whole(path) as draft:
        draft.write_text(json.dumps(values, indent=2) + "\n")
    console.print(f"all figures -> {quoted(path)}", soft_wrap=True)


def tell_still(num_still: int, noun: str) -> None:
    """Print why some videos have no figures of motion."""
    what = f"{format_count(num_still, noun)} without motion (a single frame, or all equal)"
    console.print(f"{what}: of them the motion has no figures.", soft_wrap=True)


def mark_best(cells: Sequence[str], error: Callable[[float], float]) -> list[str]:
    """A column whose best numbers, as they are printed, have a star; none where all are alike.

    error: of a number, lowest for the best.
    """
    errors = [None if cell == "-" else error(float(cell)) for cell in cells]
    known = {value for value in errors if value is not None}
    best = min(known) if len(known) > 1 else None
    marks = ["*" if value is not None and value == best else " " for value in errors]
    return [cell + mark for cell, mark in zip(cells, marks, strict=True)]
