"""Suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import PurePosixPath


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """Such as `; did you mean tiny?`, to follow a message about a name; empty where none is like it."""
    name = closest(typed, known)
    return f"; did you mean {name}?" if name else ""


def closest(typed: str, known: Iterable[str]) -> str | None:
    """The name that another most likely means; None where it resembles none.

    Dashes in front, case, and `_` for `-` make no difference. In this order: the same letters in any order, a
    path without its folder or extension, the initials of its words (`lr` of learning-rate), its first or last
    words, or letters in common.
    """
    names = {_plain(name): name for name in reversed(list(known))}  # of equal ones the first counts
    word, plain = _plain(typed), list(reversed(names))
    found = [name for name in plain if sorted(name) == sorted(word)]
    found = found or [name for name in plain if word in (PurePosixPath(name).name, PurePosixPath(name).stem)]
    found = found or [name for name in plain if "".join(part[:1] for part in name.split("-")) == word]
    found = found or [name for name in plain if name.startswith(f"{word}-") or name.endswith(f"-{word}")]
    found = found or get_close_matches(word, plain, 1)
    return names[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lstrip("-").lower().replace("_", "-")
