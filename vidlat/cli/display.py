"""What the terminal shows: progress bars, tables, sizes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Table

console = Console()
if not console.is_terminal:
    console.width = 160  # a log file has no edge to wrap at


SECONDS_BETWEEN_LINES = 30


class _Progress(Progress):
    """A moving bar in a terminal; in a log file, a line now and then."""

    _last_line = 0.0

    def update(self, *args: Any, **fields: Any) -> None:
        super().update(*args, **fields)
        if not console.is_terminal and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            console.print(self.get_renderable())


def progress_bar(*columns: str) -> Progress:
    """A bar with count, the given `{task.fields[...]}` texts, time spent and time left."""
    return _Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *(TextColumn(column) for column in columns),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeftColumn(),
        console=console,
    )


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text under column names."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def format_bytes(num_bytes: float) -> str:
    """A size with its unit, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def format_seconds(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
