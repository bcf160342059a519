"""Output to the terminal: progress bars, tables, sizes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# Names and paths are shown as they are: `scan[apical].mp4` is not markup, `:heart:` is not an emoji.
console = Console(markup=False, highlight=False, emoji=False)
if not console.is_terminal:
    console.width = 160  # a log file has no edge to wrap lines at

SECONDS_BETWEEN_LINES = 30
"""Time between two lines of progress in a log file."""

MAX_NAMES = 3
"""Most names that a message lists."""


class _Progress(Progress):
    """A progress bar in a terminal; in a log file, a line every SECONDS_BETWEEN_LINES.

    It appears with the first advance: a command that is refused before any work leaves no empty bar.
    """

    _last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        if self.live.is_started:
            super().stop()

    def advance(self, *args: Any, **fields: Any) -> None:
        super().advance(*args, **fields)
        self._show()

    def update(self, *args: Any, **fields: Any) -> None:
        super().update(*args, **fields)
        self._show()

    def _show(self) -> None:
        if self.disable:
            return
        if not self.live.is_started:
            self.start()
        if not console.is_terminal and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            console.print(self.get_renderable())


def progress_bar(*columns: str, show: bool = True) -> Progress:
    """A bar with count, the given `{task.fields[...]}` texts, time spent and time left; hidden or shown."""
    return _Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *(TextColumn(column, markup=False) for column in columns),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not show,
    )


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text under column names; columns of numbers are right-aligned."""
    cells = [[printable(cell) for cell in row] for row in rows]
    table = Table(title=Text(printable(title)), title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[number]) for row in cells)
        table.add_column(Text(column), overflow="fold", justify="right" if numeric else "left")
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def printable(text: str) -> str:
    """A name on one line: newlines, control codes and broken characters are escaped as in a Python string."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def format_count(number: int, noun: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_names(names: Sequence[str]) -> str:
    """The first few names of many."""
    return printable(", ".join(names[:MAX_NAMES]) + ", ..." * (len(names) > MAX_NAMES))


def format_bytes(num_bytes: float) -> str:
    """A size with its unit, in powers of 1000: `12 B`, `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def format_seconds(seconds: float) -> str:
    """A duration with its unit: `45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _is_number(cell: str) -> bool:
    if cell == "-":  # no figure
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True
