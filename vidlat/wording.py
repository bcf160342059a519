"""Numbers and lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence


def format_count(number: int, noun: str) -> str:
    """A number of things: `1 video`, `2,000 videos`; noun: a singular that takes an s."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def shorten(names: Sequence[str], most: int = 5) -> str:
    """The first names of many, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
