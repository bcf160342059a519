"""Output to the terminal: messages, progress bars, tables, sizes.

Nothing else in a command prints, and everything here prints `printable` text: names, labels and messages come
from files, and a terminal would obey the control codes in them.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from vidlat.errors import printable


class _Console(Console):
    """A console that prints texts on one line each, without control codes."""

    def print(self, *values: Any, **options: Any) -> None:
        super().print(*(printable(value) if isinstance(value, str) else value for value in values), **options)


# Names and paths are shown as they are: `scan[apical].mp4` is not markup, `:heart:` is not an emoji.
console = _Console(markup=False, highlight=False, emoji=False)
if not console.is_terminal:
    console.width = 160  # a log file has no edge to wrap lines at

SECONDS_BETWEEN_LINES = 30
"""Time between two lines of progress in a log file."""

MAX_NAMES = 3
"""Most names that a message lists."""


class _Column(TextColumn):
    """Text of a task, `{task.fields[...]}` filled in."""

    def render(self, task: Task) -> Text:
        return Text(printable(self.text_format.format(task=task)), style=self.style, justify=self.justify)


class _TimeLeft(ProgressColumn):
    """The time until the end that was expected when the task last went on."""

    def render(self, task: Task) -> Text:
        end = task.get_time() if task.finished else task.fields.get("end")
        left = "-:--:--" if end is None else str(timedelta(seconds=round(max(0.0, end - task.get_time()))))
        return Text(left, style="progress.remaining")


class _Progress(Progress):
    """A progress bar in a terminal; in a log file, a line every SECONDS_BETWEEN_LINES.

    It appears with the first advance: a command that is refused before any work leaves no empty bar. What is
    left is expected to go on at the mean speed since the field `began` of a task, by default its start:
    several processes report at nearly the same time, and the last few reports tell no speed. A first advance
    by 0 says that the work begins now, after what is no part of it. The field `share` says how much of the
    work is done, if it is not the share of the count.
    """

    _last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        if self.live.is_started:
            super().stop()

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        return super().add_task(description, start, total, completed, visible, first=completed, **fields)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        self.update(task_id, advance=advance)

    def update(self, task_id: TaskID, *args: Any, **fields: Any) -> None:
        task = next(task for task in self.tasks if task.id == task_id)
        before = _share(task)
        super().update(task_id, *args, **fields)
        share, now = _share(task), task.get_time()
        if not before and fields.get("advance") == 0:
            task.fields["began"] = now
        if share and share != before:
            gone = now - (task.fields.get("began") or task.start_time or now)
            task.fields["end"] = now + gone * (1 - share) / share
        self._show(task)

    def _show(self, task: Task) -> None:
        if self.disable:
            return
        if not self.live.is_started:
            self.start()
        if not console.is_terminal and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            console.print(self.make_tasks_table([task]))  # those that have ended have had their line


def _share(task: Task) -> float:
    """How much of what a task had to do at its start is done, from 0 to 1; 0 where that is not known."""
    first = task.fields["first"]
    whole = (task.total or 0) - first
    return float(min(1.0, task.fields.get("share", (task.completed - first) / whole if whole > 0 else 0.0)))


def progress_bar(*columns: str, show: bool = True) -> Progress:
    """A bar with count, time spent, time left and the given `{task.fields[...]}` texts; hidden or shown."""
    return _Progress(
        _Column("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _Column("gone,"),
        _TimeLeft(),
        _Column("left"),
        *map(_Column, columns),  # last, since a narrow terminal cuts off the end of long names
        console=console,
        disable=not show,
    )


class Stages:
    """A bar for each stage of a work, added when its first part is done; it began when the last one ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._began = progress.get_time()

    def show(self, stage: str, done: float, total: float, **fields: Any) -> None:
        """So much of a stage is done."""
        self._progress.update(self._task(stage, total, fields), completed=done, total=total, **fields)

    def advance(self, stage: str, done: float, total: float, **fields: Any) -> None:
        """So much more of a stage is done."""
        self._progress.update(self._task(stage, total, fields), advance=done, **fields)

    def _task(self, stage: str, total: float, fields: dict[str, Any]) -> TaskID:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, began=self._began, **fields)
        self._began = self._progress.get_time()  # of the next, if this is the last part
        return self._tasks[stage]


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text under column names; columns of numbers are right-aligned."""
    cells = [[printable(cell) for cell in row] for row in rows]
    console.print(Text(printable(title), style="italic"), soft_wrap=True)  # else as narrow as the table
    table = Table(header_style="bold")
    for number, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[number]) for row in cells)
        table.add_column(Text(column), overflow="fold", justify="right" if numeric else "left")
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def echo(*lines: str, err: bool = False) -> None:
    """Print lines as they are, however long, at once; to stderr if `err`."""
    click.echo("\n".join(map(printable, lines)), err=err)


def echo_json(value: object) -> None:
    """Print a value as JSON, which escapes control codes itself."""
    click.echo(json.dumps(value, indent=2))


def quoted(path: Path | str) -> str:
    """A path or an address as a shell takes it, for commands that can be copied."""
    return shlex.quote(str(path))


def format_names(names: Sequence[str]) -> str:
    """The first few names of many."""
    return ", ".join(names[:MAX_NAMES]) + ", ..." * (len(names) > MAX_NAMES)


def format_bytes(num_bytes: float) -> str:
    """A size with its unit, in powers of 1000: `12 B`, `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def _is_number(cell: str) -> bool:
    cell = cell.removesuffix("*").strip()  # what marks the best
    if cell == "-":  # no figure
        return True
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True
