"""Numbers, durations and lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence


def format_count(number: int, noun: str) -> str:
    """A number of things: `1 video`, `2,000 videos`; noun: a singular that takes an s."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def format_seconds(seconds: float) -> str:
    """A duration to two figures: `0.64 s`, `45 s`, `1.6 min`, `12 min`, `3.4 h`."""
    size, unit = (1, "s") if seconds < 60 else (60, "min") if seconds < 3600 else (3600, "h")
    number = seconds / size
    return f"{number:,.0f} {unit}" if number >= 9.95 else f"{round(number, 4):.2g} {unit}"


def shorten(names: Sequence[str], most: int = 5) -> str:
    """The first names of many, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
