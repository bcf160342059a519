"""The page of a comparison: which settings keep most of some clips, at what cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from vidlat.errors import DecodeError, InputError
from vidlat.evaluate.comparison import CompareProgress, Comparison
from vidlat.evaluate.figures import COSTS, ERRORS, FIGURES, costs, figures
from vidlat.evaluate.quality import PSNR_CAP, VideoQuality
from vidlat.fit.learning import CurvePoint, Learning, LearningCurve, criteria_table, training_table
from vidlat.paths import local_path
from vidlat.report.moving import MOST_BYTES, Moving, moving_file
from vidlat.report.page import write_page
from vidlat.report.plots import Point, Series, line_plot, scatter_plot, strip_plot
from vidlat.report.tables import Table
from vidlat.video.writer import prepare_file

NUM_CLIPS = 3
"""Clips shown of the worst, and of the best."""

_QUALITIES: Mapping[str, tuple[str, Callable[[VideoQuality], float | None]]] = {
    "PSNR": ("PSNR in dB (more is closer)", lambda video: min(video.psnr, PSNR_CAP)),
    "SSIM": ("SSIM (1 is equal)", lambda video: video.ssim),
    "Sharpness": ("energy of fine detail over the source's (1 is right)", lambda video: video.sharpness),
    "Motion": (
        "correlation of motion with the source's (1 is right)",
        lambda video: video.motion.correlation,
    ),
}
"""By title, what the distributions show: the label of an axis, and the figure of a video."""


def report_comparison(
    events: Iterable[CompareProgress], out: str | Path, learning: Learning | None = None
) -> Path:
    """Write what `compare_videos` yielded as one HTML page, also if that was cut short, and return its path.

    learning: of the VAEs whose trainings are compared.
    The clips with the least and the greatest PSNR are part of the page, as moving pictures. The file appears
    whole or not at all. Raises InputError where it cannot be written, or if no clip has been measured with
    all settings.
    """
    path = local_path(out)
    prepare_file(path)
    seen = list(events)
    comparison = Comparison.of(seen)
    if not comparison.candidates:
        raise InputError(
            f"{path}: no clip has been compared with all settings, so there is nothing to report"
        )
    files = {event.video_id: event.pictures[0] for event in seen if event.video_id and event.pictures}
    num_clips = seen[0].num_clips if seen else 0
    chosen = _worst_and_best(comparison)
    moving, num_too_large = _moving(chosen, files)
    vaes = _vaes(comparison, learning)
    write_page(
        path,
        "comparison.html",
        comparison=comparison,
        num_clips=num_clips,
        is_cut_short=len(comparison.clips) + len(comparison.failed_clips) < num_clips,
        settings=_settings_table(comparison),
        costs=_cost_plots(comparison, vaes),
        learning=_learning_tables(learning) if learning else None,
        curves=_learning_plots(learning.curves) if learning else {},
        distributions=quality_plots(
            {compared.candidate.name: compared.clips for compared in comparison.candidates},
            {each.candidate.name: vaes.index(each.candidate.called) for each in comparison.candidates},
        ),
        clips=_clip_table(comparison),
        moving=moving,
        num_too_large=num_too_large,
        num_without_picture=len(comparison.clips) - len(moving),
        left_out=_left_out(comparison),
    )
    return path


def _learning_tables(learning: Learning) -> list[Table]:
    captions = (
        "Error of the averaged weights on the clips that each training holds out",
        "Which criteria hold",
    )
    return [
        Table.of(caption, *table)
        for caption, table in zip(captions, (training_table(learning), criteria_table(learning)), strict=True)
    ]


def _learning_plots(curves: Sequence[LearningCurve]) -> dict[str, Markup]:
    def plot(value: Callable[[CurvePoint], float | None], y_label: str, *, log_y: bool = False) -> Markup:
        series = [
            Series(
                curve.name,
                [point.epoch for point in curve.points],
                [math.nan if (y := value(point)) is None else y for point in curve.points],
            )
            for curve in curves
        ]
        return line_plot(series, "epochs", y_label, log_y=log_y)

    return {
        "Error, held out": plot(lambda point: point.mse, "MSE", log_y=True),
        "SSIM, held out": plot(lambda point: point.ssim, "SSIM (1 is equal)"),
        "Sharpness, held out": plot(
            lambda point: point.sharpness, "energy of detail (1 is right)", log_y=True
        ),
        "Motion, held out": plot(lambda point: point.correlation, "correlation (1 is right)"),
    }


def _vaes(comparison: Comparison, learning: Learning | None) -> list[str]:
    """What VAEs are called, in the order of their colours: as the curves of trainings, then the others."""
    curves = [curve.name for curve in learning.curves] if learning else []
    return list(dict.fromkeys([*curves, *(each.candidate.called for each in comparison.candidates)]))


def quality_plots(
    by_name: Mapping[str, Sequence[VideoQuality]], colours: Mapping[str, int] | None = None
) -> dict[str, Markup]:
    """By title, the distributions over videos of PSNR, SSIM, sharpness and motion, a row per name.

    colours: as for `strip_plot`.
    """
    return {
        title: strip_plot(
            {
                name: [number for video in videos if (number := value(video)) is not None]
                for name, videos in by_name.items()
            },
            label,
            colours=colours,
        )
        for title, (label, value) in _QUALITIES.items()
    }


def _numbered(comparison: Comparison) -> dict[str, str]:
    return {compared.candidate.name: str(number) for number, compared in enumerate(comparison.candidates, 1)}


def _settings_table(comparison: Comparison) -> Table:
    numbers = _numbered(comparison)
    rows = [
        (
            numbers[compared.candidate.name],
            compared.candidate.name,
            *figures(compared.summary, compared.summary.motion),
            *costs(compared),
        )
        for compared in comparison.candidates
    ]
    caption = "Means over the clips; motion of all together; ★ the best of a column"
    return Table.of(caption, ("no.", "setting", *FIGURES, *COSTS), rows, ERRORS)


def _cost_plots(comparison: Comparison, vaes: Sequence[str]) -> dict[str, Markup]:
    """Rate against distortion, of still pictures and of motion. vaes: in the order of their colours."""
    numbers = _numbered(comparison)

    def plot(x: Sequence[float], y: Sequence[float | None], x_label: str, y_label: str) -> Markup:
        points = [
            Point(
                x,
                y,
                numbers[each.candidate.name],
                each.candidate.called,
                each.candidate.name,
            )
            for each, x, y in zip(comparison.candidates, x, y, strict=True)
            if y is not None
        ]
        return scatter_plot(points, x_label, y_label, groups=vaes, log_x=True)

    rates = [compared.candidate.values_per_pixel for compared in comparison.candidates]
    sizes = [compared.candidate.bytes_per_1000_frames / 1e6 for compared in comparison.candidates]
    psnrs = [compared.summary.psnr for compared in comparison.candidates]
    motions = [compared.summary.motion.correlation for compared in comparison.candidates]
    times = [compared.seconds_per_1000_frames for compared in comparison.candidates]
    return {
        "Pictures, by latent values": plot(rates, psnrs, "latent values per pixel", "mean PSNR in dB"),
        "Pictures, by disk": plot(sizes, psnrs, "MB per 1,000 frames", "mean PSNR in dB"),
        "Motion, by latent values": plot(rates, motions, "latent values per pixel", "correlation of motion"),
        "Pictures, by time": plot(times, psnrs, "seconds to encode 1,000 frames", "mean PSNR in dB"),
    }


def _clip_table(comparison: Comparison) -> Table:
    numbers = _numbered(comparison)
    rows = []
    for index, video_id in enumerate(comparison.clips):
        clips = [compared.clips[index] for compared in comparison.candidates]
        rows.append((video_id, str(clips[0].num_frames), *(f"{clip.psnr:.2f}" for clip in clips)))
    headings = ("clip", "frames", *(f"no. {number}" for number in numbers.values()))
    return Table.of("PSNR in dB of each clip with each setting, by its number above", headings, rows)


def _mean_psnr(comparison: Comparison) -> dict[str, float]:
    sums = [
        sum(min(each.clips[i].psnr, PSNR_CAP) for each in comparison.candidates)
        for i in range(len(comparison.clips))
    ]
    return {
        clip: value / len(comparison.candidates) for clip, value in zip(comparison.clips, sums, strict=True)
    }


def _worst_and_best(comparison: Comparison) -> dict[str, str]:
    """Ids of clips with a note on each."""
    psnrs = _mean_psnr(comparison)
    ranked = sorted(psnrs, key=lambda video_id: psnrs[video_id])
    best = [video_id for video_id in ranked[::-1][:NUM_CLIPS] if video_id not in ranked[:NUM_CLIPS]]
    notes = {video_id: "among the worst" for video_id in ranked[:NUM_CLIPS]} | dict.fromkeys(
        best, "among the best"
    )
    return {
        video_id: f"{note}: {psnrs[video_id]:.1f} dB on the mean of the settings"
        for video_id, note in notes.items()
    }


def _moving(chosen: Mapping[str, str], files: Mapping[str, Path]) -> tuple[list[Moving], int]:
    """Moving pictures of the chosen clips, and how many would be too large."""
    made: list[Moving | None] = []
    for video_id, note in chosen.items():
        try:
            made.append(moving_file(video_id, note, files[video_id], MOST_BYTES // len(chosen)))
        except (DecodeError, KeyError, OSError):
            continue  # it was removed meanwhile
    shown = [moving for moving in made if moving]
    return shown, len(made) - len(shown)


def _left_out(comparison: Comparison) -> Table:
    kinds = {
        "combination": comparison.impossible,
        "VAE or setting": comparison.failed_candidates,
        "clip": comparison.failed_clips,
    }
    rows = [(kind, name, reason) for kind, reasons in kinds.items() for name, reason in reasons.items()]
    return Table.of("Left out of the comparison, and why", ("what", "name", "reason"), rows)
