"""The page of several runs: a table, their losses in one plot, their samples beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from vidlat.errors import DecodeError
from vidlat.report.moving import MOST_BYTES, Moving, moving_file
from vidlat.report.page import write_page
from vidlat.report.plots import Series, line_plot
from vidlat.report.tables import Table
from vidlat.train.runs.metrics import NUM_RECENT
from vidlat.train.runs.summary import RunSummary
from vidlat.train.runs.table import Column, fact_columns, setting_columns
from vidlat.video.writer import prepare_file

MOST_POINTS = 300
"""Of the curve of a training loss."""


def report_runs(runs: Sequence[RunSummary], out: Path) -> None:
    """Write one HTML file about runs, whole or not at all; raises InputError where it cannot be written."""
    prepare_file(out)
    facts, settings = fact_columns(runs), setting_columns(runs)
    moving = {run.run_dir: _samples(run, MOST_BYTES // len(runs)) for run in runs}
    write_page(
        out,
        "runs.html",
        num_runs=len(runs),
        num_recent=NUM_RECENT,
        runs=_table("How far and how well", facts, runs),
        settings=_table("Settings in which they differ", [facts[0], *settings], runs) if settings else None,
        losses={"Loss": _losses(runs)},
        moving=[found for found in moving.values() if found],
        without_samples=[str(run_dir) for run_dir, found in moving.items() if not found],
        problems=[problem for run in runs for problem in run.problems],
    )


def _table(caption: str, columns: Sequence[Column], runs: Sequence[RunSummary]) -> Table:
    rows = [[column.text(run) for column in columns] for run in runs]
    return Table.of(caption, [column.heading for column in columns], rows)


def _losses(runs: Sequence[RunSummary]) -> Markup:
    def series(run: RunSummary, points: Sequence[tuple[float, float]]) -> Series:
        return Series(str(run.run_dir), [step for step, _ in points], [loss for _, loss in points])

    validation = [series(run, run.metrics.validations) for run in runs]
    training = [series(run, run.metrics.curve(MOST_POINTS)) for run in runs]
    return line_plot(validation, "step", "loss", faint=training, log_y=True)


def _samples(run: RunSummary, most_bytes: int) -> Moving | None:
    """The last samples that were drawn during a training; None without, or where they cannot be read."""
    for path in sorted((run.run_dir / "samples").glob("step_*.gif"), reverse=True):
        step = path.stem.removeprefix("step_").lstrip("0")
        try:
            return moving_file(str(run.run_dir), f"step {step} of {run.steps}", path, most_bytes)
        except (DecodeError, OSError):
            continue
    return None
