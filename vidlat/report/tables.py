"""Tables of a page, which a click on a heading sorts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """A text of a table; is_best: of its column."""

    text: str
    is_best: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Headings and rows of cells, and for each column whether it holds numbers."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    are_numbers: Sequence[bool]

    @classmethod
    def of(
        cls,
        caption: str,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        errors: Mapping[str, Callable[[float], float]] | None = None,
    ) -> Table:
        """A table of texts. errors: by heading, least for the best number of the column, which is marked."""
        columns = list(zip(*rows, strict=True)) if rows else [() for _ in headings]
        marked = [
            [False] * len(cells)
            if errors is None or heading not in errors
            else are_best(cells, errors[heading])
            for heading, cells in zip(headings, columns, strict=True)
        ]
        cells = [
            [Cell(text, is_best[number]) for text, is_best in zip(row, marked, strict=True)]
            for number, row in enumerate(rows)
        ]
        are_numbers = [bool(column) and all(map(_is_number, column)) for column in columns]
        return cls(caption=caption, headings=headings, rows=cells, are_numbers=are_numbers)

    def has_best(self, column: int) -> bool:
        """Whether a number of a column is marked as its best."""
        return any(row[column].is_best for row in self.rows)


def _is_number(text: str) -> bool:
    """Whether a text is a number, or the dash of one that is not known."""
    try:
        float(text.removesuffix("%"))
    except ValueError:
        return text == "-"
    return True


def are_best(cells: Sequence[str], error: Callable[[float], float]) -> list[bool]:
    """Which numbers of a column are best, as they are printed; none where all are alike.

    error: of a number, lowest for the best.
    """
    errors = [None if cell == "-" else error(float(cell)) for cell in cells]
    known = {value for value in errors if value is not None}
    best = min(known) if len(known) > 1 else None
    return [value is not None and value == best for value in errors]
