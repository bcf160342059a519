"""A file of JSON lines that only grows: the first line holds for the whole folder, each other for a video.

A process that is killed may leave half a line at the end, which does not count. Several processes may append
at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vidlat.documents import Fields, parse_json
from vidlat.errors import InputError, shown
from vidlat.files import open_regular_file, read_file, sync
from vidlat.store.storage.filesystem import locked

FILE_BYTES = 2**28
"""Most bytes of such a file: a million lines have less."""

LINE_BYTES = 2**16
"""Read at once to find where the last line ends; most lines have much less."""


def read_lines(path: Path) -> list[Fields] | None:
    """The objects on the whole lines; None where there is no file, or not one whole line.

    Raises OSError where it cannot be read, ValueError for a line that is no object, which it names.
    """
    try:
        lines = read_file(path, FILE_BYTES).split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Without a whole line, a process was killed before it had written the first, or is writing it.
    return [_fields_of(line, number) for number, line in enumerate(lines, 1)] or None


def _fields_of(line: bytes, number: int) -> Fields:
    try:
        return Fields(parse_json(line), "it")
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def start_lines(path: Path, first: Mapping[str, Any]) -> None:
    """Write the first line, unless another process has done so meanwhile; raises InputError."""
    try:
        with _after_whole_lines(path) as file:
            if not file.tell():
                _append(file, first)
        sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append a line, which is on disk when this returns; raises InputError."""
    try:
        with _after_whole_lines(path) as file:
            _append(file, values)
    except OSError as error:
        raise _unwritable(path, error) from error


def differences_in_words(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Which values differ between two first lines, and the first of them; empty where they are equal."""
    differing = [name for name in {**wanted, **there} if wanted.get(name) != there.get(name)]
    if not differing:
        return ""
    first = differing[0]
    got, has = shown(wanted.get(first)), shown(there.get(first))
    verb = "differs" if len(differing) == 1 else "differ"
    return f"{', '.join(differing)} {verb}; {first}: got {got}, there {has}"


@contextmanager
def _after_whole_lines(path: Path) -> Iterator[BinaryIO]:
    """The file, locked and opened to append, without the half line that a killed process left."""
    # Locked, half a line at the end is not one that another process is about to end.
    with locked(path), open_regular_file(path, create=True) as file:
        end = _end_of_lines(file)
        file.truncate(end)
        file.seek(end)
        yield file


def _end_of_lines(file: BinaryIO) -> int:
    """The position after the last newline."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - LINE_BYTES, 0)
        file.seek(start)
        if found := file.read(end - start).rfind(b"\n") + 1:
            return start + found
        end = start
    return 0


def _append(file: BinaryIO, values: Mapping[str, Any]) -> None:
    file.write((json.dumps(values) + "\n").encode())
    file.flush()
    os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror})")
