"""Reading tables, CSV or JSON lines, row by row."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import IO

from vidlat.documents import parse_json
from vidlat.errors import InputError, one_line
from vidlat.files import require_regular_file
from vidlat.store.object_sources import read_object
from vidlat.store.storage.interface import Missing

Row = tuple[str, dict[str, str]]
"""File and line, for errors, and the cells that are not empty, by column."""

SUFFIXES = (".csv", ".jsonl")

_ALIKE = {
    "path": re.compile(r".*path", re.IGNORECASE),  # dicom_filepath in MIMIC-IV-ECHO
    "video_id": re.compile(r"file_?name|video_?id", re.IGNORECASE),  # FileName in EchoNet-Dynamic
    "subject": re.compile(r"subject", re.IGNORECASE),
}

_LIKE = {"path": "dicom_filepath", "video_id": "FileName"}

CSV_UTF_8 = "CSV UTF-8"
"""What Excel calls it where it saves a table."""

_WORKBOOKS = {
    b"PK\x03\x04": "an Excel workbook, or another zip archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an Excel workbook (.xls)",
}
"""What a file is that begins so."""

_NO_UTF8 = re.compile("[\udc80-\udcff]")
"""A byte that is not UTF-8, as `surrogateescape` decodes it."""


def read_table(table: Path | str, key: str) -> Iterator[Row]:
    """The rows of a table at a path or an address; each must have a value in the column `key`.

    In CSV, a single column called alike will do: `dicom_filepath` for `path`, `FileName` for `video_id`; and
    everywhere `Subject`, in any case, for `subject`. Cells of CSV are separated by commas; by `;` or tabs,
    where the first line has no comma.
    Raises InputError, naming the line, for a table that cannot be read; Unreachable.
    """
    is_json = str(table).lower().endswith(".jsonl")
    try:
        with _open_table(table) as file:
            lines = _checked(table, file, "UTF-8" if is_json else CSV_UTF_8)
            for where, row in (_read_jsonl if is_json else _read_csv)(table, lines, key):
                if not row.get(key):
                    raise InputError(f"{where}: has no {key}")
                yield where, row
    except (FileNotFoundError, Missing) as error:
        raise InputError(f"{table}: no such file") from error
    except OSError as error:
        raise InputError(f"{table}: cannot be read as a table: {one_line(error)}") from error


def _open_table(table: Path | str) -> IO[str]:
    """The lines of a table; bytes that are not UTF-8 become surrogates."""
    if isinstance(table, Path):
        require_regular_file(table)
        return table.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    return StringIO(read_object(table).decode("utf-8-sig", "surrogateescape"), newline="")


def _checked(table: Path | str, lines: Iterable[str], way_out: str) -> Iterator[str]:
    """The lines of a table; raises InputError for a workbook, and at a line that is not UTF-8.

    way_out: the format to save the table in.
    """
    for number, line in enumerate(lines, 1):
        start = line[:8].encode("utf-8", "surrogateescape") if number == 1 else b""
        for magic, what in _WORKBOOKS.items():
            if start.startswith(magic):
                raise InputError(f"{table}: is {what}; expected a table as text: save it as {CSV_UTF_8}")
        if wrong := _NO_UTF8.search(line):
            byte = ord(wrong[0]) - 0xDC00
            raise InputError(
                f"{table} line {number}: is not in UTF-8 (got byte 0x{byte:02x}); save it as {way_out}"
            )
        yield line


def _read_csv(table: Path | str, lines: Iterator[str], key: str) -> Iterator[Row]:
    first = next(lines, "")
    rows = _csv_rows(table, chain([first], lines), _delimiter_of(first))
    names = _named_columns(next(rows, (1, []))[1], key)
    named = [name for name in names if name]  # pandas writes its index as a column without a name
    if key not in names or len(set(named)) < len(named):
        found = ", ".join(names) or "nothing"
        raise InputError(
            f"{table}: expected a first line of different columns, {key} (or one such as {_LIKE[key]}) among "
            f"them; got {found}"
        )
    for number, cells in rows:
        where = f"{table} line {number}"
        if any(cells) and len(cells) != len(names):
            raise InputError(f"{where}: has {len(cells)} cells under {len(names)} columns")
        if any(cells):
            pairs = zip(names, (cell.strip() for cell in cells), strict=True)
            yield where, {name: cell for name, cell in pairs if name and cell}


def _csv_rows(table: Path | str, lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its last line."""
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{table} line {first}: cannot be read as CSV ({error}); is a quotation mark not closed, or "
                "not doubled inside a cell?"
            ) from error
        yield reader.line_num, cells


def header_of(first: str, key: str) -> tuple[str, list[str]]:
    """The delimiter of a CSV table, and its columns as `read_table` names them, by its first line."""
    mark = _delimiter_of(first)
    return mark, _named_columns(next(csv.reader([first], delimiter=mark), []), key)


def _delimiter_of(first: str) -> str:
    """A comma, or where a first line has none, `;`, which Excel writes in much of Europe, or a tab."""
    return next((mark for mark in (",", ";", "\t") if mark in first), ",")


def _named_columns(cells: Sequence[str], key: str) -> list[str]:
    """The columns of a table, where those called like `key` and `subject` have these names."""
    return _called(_called([cell.strip() for cell in cells], key), "subject")


def _called(names: list[str], known: str) -> list[str]:
    """The names, where the only one that is alike has the known name, unless another has it."""
    alike = [name for name in names if _ALIKE[known].fullmatch(name)]
    return [known if known not in names and [name] == alike else name for name in names]


def _read_jsonl(table: Path | str, lines: Iterator[str], key: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        where = f"{table} line {number}"
        if not line.strip():
            continue
        try:
            values = parse_json(line)
        except ValueError as error:
            raise InputError(f"{where}: is no JSON ({error})") from error
        if not isinstance(values, dict) or any(isinstance(value, dict | list) for value in values.values()):
            raise InputError(f"{where}: expected an object of texts and numbers, with {key}")
        yield (
            where,
            {
                name: text
                for name, value in zip(_called(list(values), "subject"), values.values(), strict=True)
                if value is not None
                and (text := value.strip() if isinstance(value, str) else json.dumps(value))
            },
        )
