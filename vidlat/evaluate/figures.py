"""Figures of quality and cost as cells of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vidlat.evaluate.comparison import Compared
from vidlat.evaluate.motion import Motion
from vidlat.evaluate.quality import Summary, VideoQuality

FIGURES = ("MSE", "PSNR dB", "SSIM", "sharp", "motion in", "border", "corr")
"""Columns. motion in, border: energy ratios of changes inside stacks and at their borders."""

COSTS = ("values/px", "MB/1000", "s/1000")
"""Columns: latent values per pixel; megabytes in a cache and seconds to encode, per 1,000 frames."""


def _less(value: float) -> float:
    return value


def _more(value: float) -> float:
    return -value


def _near_one(value: float) -> float:
    return abs(value - 1)


ERRORS: Mapping[str, Callable[[float], float]] = {
    **dict(zip(FIGURES, (_less, _more, _more, _near_one, _near_one, _near_one, _more), strict=True)),
    **dict.fromkeys(COSTS, _less),
}
"""Of the numbers in each column, least for the best."""


def figures(quality: VideoQuality | Summary, motion: Motion) -> tuple[str, ...]:
    """In the order of FIGURES."""
    ratios = quality.sharpness, motion.energy_inside, motion.energy_at_borders, motion.correlation
    return f"{quality.mse:.1e}", f"{quality.psnr:.2f}", f"{quality.ssim:.3f}", *map(number, ratios)


def costs(compared: Compared) -> tuple[str, ...]:
    """In the order of COSTS."""
    return (
        f"{compared.candidate.values_per_pixel:.4f}",
        f"{compared.candidate.bytes_per_1000_frames / 1e6:.2f}",
        f"{compared.seconds_per_1000_frames:.1f}",
    )


def number(value: float | None) -> str:
    """With two decimals; a dash for none."""
    return "-" if value is None else f"{value:.2f}"
