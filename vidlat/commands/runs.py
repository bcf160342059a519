"""`vidlat runs`: trainings side by side, as a table, JSON or a page."""

from __future__ import annotations

from pathlib import Path

from vidlat.commands.display import console, echo, echo_json, print_table, quoted
from vidlat.train.runs.summary import RunSummary, find_runs, summarise_run
from vidlat.train.runs.table import Column, fact_columns, run_document, setting_columns, sorted_runs
from vidlat.wording import format_count


def runs(places: tuple[Path, ...], sort: str, as_json: bool, report_file: Path | None) -> None:
    """Read all runs at and below some places, and print them."""
    notices: list[str] = []
    read = [summarise_run(run_dir) for run_dir in find_runs(places, notices.append)]
    found = sorted_runs([run for run in read if run.trains == "diffusion"], sort)
    if as_json:
        settings = setting_columns(found)
        echo_json([run_document(run, settings) for run in found])
    else:
        facts, settings = fact_columns(found), setting_columns(found)
        _print(format_count(len(found), "run"), facts, found)
        if settings:
            _print("Settings in which they differ", [facts[0], *settings], found)
        notices += [problem for run in found for problem in run.problems]
        if num_others := len(read) - len(found):
            left_out = format_count(num_others, "training")
            notices.append(f"{left_out} of a VAE left out; `vidlat compare --training` compares those")
    for notice in notices:
        echo(f"Note: {notice}", err=as_json)
    if report_file:
        from vidlat.report.runs import report_runs  # which reads videos

        report_runs(found, report_file)
        if not as_json:
            console.print(f"report -> {quoted(report_file)}", soft_wrap=True)


def _print(title: str, columns: list[Column], found: list[RunSummary]) -> None:
    rows = [[column.text(run) for column in columns] for run in found]
    print_table(title, [column.heading for column in columns], rows)
