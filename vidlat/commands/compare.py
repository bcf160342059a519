"""`vidlat compare`: prints what settings keep of some clips, and writes pictures to look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vidlat.commands.display import console, print_table, progress_bar, quoted
from vidlat.commands.figures import tell_still, write_figures
from vidlat.commands.learning import print_learning
from vidlat.config import CompareConfig
from vidlat.errors import ConfigError, ExitCode, VidlatError
from vidlat.evaluate.comparison import MAX_SHOWN, CompareProgress, Comparison, compare_videos
from vidlat.evaluate.figures import COSTS, ERRORS, FIGURES, costs, figures
from vidlat.fit.learning import Learning
from vidlat.fit.trainings import Trainings
from vidlat.report.comparison import report_comparison
from vidlat.report.tables import are_best
from vidlat.video.writer import prepare_file
from vidlat.wording import format_count, shorten

WIDE = 140
"""Letters in a line from which on all columns are in one table."""


def compare(
    inputs: tuple[str, ...],
    out: Path,
    json_file: Path | None,
    report_file: Path | None,
    labels: Path | None,
    training: tuple[Path, ...],
    target_mse: float | None,
    settings: dict[str, Any],
) -> ExitCode:
    """Compare, and print the figures; also those so far where it is cut short."""
    trainings = Trainings.read(training) if training else None
    if target_mse and not trainings:
        raise ConfigError("target_mse: counts epochs of trainings; give them by --training")
    known = trainings.settings() | {"vae": ()} if trainings else {}
    config = CompareConfig.from_mapping(known | settings)
    events = compare_videos(
        inputs,
        out,
        config,
        labels=labels,
        named=trainings.weights if trainings else {},
        among=trainings.held_out() if trainings else None,
    )
    if json_file:
        prepare_file(json_file, "--json")
    if report_file:
        prepare_file(report_file, "--report")
    seen: list[CompareProgress] = []
    tell = partial(_tell, seen, out, json_file, report_file, trainings, target_mse)
    try:
        _follow(events, seen)
    except (KeyboardInterrupt, VidlatError):
        tell(is_cut_short=True)
        raise
    comparison = tell(is_cut_short=False)
    failed = comparison.failed_candidates or comparison.failed_clips
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE


def _follow(events: Iterable[CompareProgress], seen: list[CompareProgress]) -> None:
    """Add the events to those seen and to a progress bar, with a line for whatever is left out."""
    num_measured = 0
    with progress_bar("{task.fields[note]}") as progress:
        task = progress.add_task("comparing", total=None, note="")
        for event in events:
            seen.append(event)
            for reason in dict.fromkeys(event.impossible.values()):
                names = [name for name, why in event.impossible.items() if why == reason]
                console.print(f"{shorten(names, 3)}: {reason}; left out", soft_wrap=True)
            if event.failure:
                console.print(f"{event.name or event.video_id}: {event.failure}; left out", soft_wrap=True)
            if event.measurement:
                num_measured += 1
                done, note = num_measured / event.num_candidates, f"{event.video_id}: {event.name}"
                progress.update(task, completed=done, total=event.num_clips, note=note)
            elif event.video_id and event.failure:
                num_measured += event.num_candidates
                progress.update(task, completed=num_measured / event.num_candidates, total=event.num_clips)


def _tell(
    seen: Sequence[CompareProgress],
    out: Path,
    json_file: Path | None,
    report_file: Path | None,
    trainings: Trainings | None,
    target_mse: float | None,
    *,
    is_cut_short: bool,
) -> Comparison:
    comparison = Comparison.of(seen)
    if comparison.candidates:
        learning = Learning.of(trainings.curves, comparison, target_mse) if trainings else None
        _print_figures(comparison)
        if learning:
            print_learning(learning)
        if num_still := sum(clip.motion.energy is None for clip in comparison.candidates[0].clips):
            tell_still(num_still, "clip")
        if num_shown := sum(bool(event.pictures) for event in seen):
            shown = f", with the first {MAX_SHOWN} settings" if len(comparison.candidates) > MAX_SHOWN else ""
            count = format_count(num_shown, "clip")
            console.print(f"{count} to look at{shown} -> {quoted(out)}", soft_wrap=True)
        if json_file:
            learned = {"learning": learning.to_dict()} if learning else {}
            write_figures(json_file, comparison.to_dict() | learned)
        if report_file:
            report_comparison(seen, report_file, learning)
            console.print(f"report -> {quoted(report_file)}", soft_wrap=True)
    if is_cut_short and comparison.candidates:
        console.print(
            f"Cut short: {len(comparison.candidates)} of {seen[0].num_candidates} settings are compared, on "
            f"{len(comparison.clips)} of {format_count(seen[0].num_clips, 'clip')}; the rest is left out.",
            soft_wrap=True,
        )
    return comparison


def _print_figures(comparison: Comparison) -> None:
    rows = [
        (*figures(compared.summary, compared.summary.motion), *costs(compared))
        for compared in comparison.candidates
    ]
    columns = dict(zip(ERRORS, zip(*rows, strict=True), strict=True))
    marked = {
        name: [
            cell + " *"[is_best] for cell, is_best in zip(cells, are_best(cells, ERRORS[name]), strict=True)
        ]
        for name, cells in columns.items()
    }
    settings = [compared.candidate.name for compared in comparison.candidates]
    frames = format_count(comparison.candidates[0].summary.num_frames, "frame")
    count = format_count(len(comparison.clips), "clip")
    title = f"Means of {count}, {frames}; motion of all together; * best"
    tables: dict[str, Sequence[str]] = {title: FIGURES, "Costs per pixel and per 1,000 frames": COSTS}
    if console.width >= WIDE:
        tables = {title: [*ERRORS]}
    for heading, names in tables.items():
        cells = zip(settings, *(marked[name] for name in names), strict=True)
        print_table(heading, ("setting", *names), list(cells))
