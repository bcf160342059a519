"""The pages of a record file, as their headers describe them: what reading it will take in memory.

pyarrow gives away encodings only with the rest of a column's metadata, and ends the process where those
contradict each other. Its own reader goes by the page headers, so these are what counts.
Sources: the Parquet format (PageHeader) and Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

MAGIC = b"PAR1"
HEADER_BYTES = 2**16
"""Of a page header, at most: beside a few numbers it holds the least and greatest value of the page."""

MOST_NESTED = 8

DATA_PAGE, PLAIN = 0, 0
PAGE_TYPE, UNCOMPRESSED_SIZE, COMPRESSED_SIZE, DATA_PAGE_HEADER = 1, 2, 3, 5
NUM_VALUES, ENCODING = 1, 2
"""Fields of a PageHeader, and of its DataPageHeader."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of plain values. num_bytes: what it unpacks to."""

    num_values: int
    num_bytes: int


def read_pages(file: pa.NativeFile) -> Iterator[Page]:
    """All pages of an opened file. Raises ValueError unless they are plain and fill it up to its footer."""
    size = file.size()
    end = size - 8 - int.from_bytes(file.read_at(4, max(size - 8, 0)), "little")
    position = len(MAGIC)
    while position < end:
        header = _Struct(file.read_at(min(HEADER_BYTES, end - position), position))
        fields = header.read()
        data = fields.get(DATA_PAGE_HEADER)
        if fields.get(PAGE_TYPE) != DATA_PAGE or not isinstance(data, dict) or data.get(ENCODING) != PLAIN:
            raise ValueError("a page is not of plain values, so that few bytes may stand for many")
        yield Page(_size(data, NUM_VALUES), _size(fields, UNCOMPRESSED_SIZE))
        position += header.position + _size(fields, COMPRESSED_SIZE)
    if position != end:
        raise ValueError("its pages do not end where its footer begins")


def _size(fields: dict[int, Any], number: int) -> int:
    size = fields.get(number)
    if not isinstance(size, int) or size < 0:
        raise ValueError("a page states no size")
    return size


class _Struct:
    """A struct of Thrift's compact protocol, read field by field."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def read(self, depth: int = 0) -> dict[int, Any]:
        """The fields by number; texts are skipped. Raises ValueError for what is no such struct."""
        if depth > MOST_NESTED:
            raise ValueError("a page header is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._signed()
            fields[number] = self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 8:
                length = self._unsigned()
                self.position += length
                return None
            case 12:
                return self.read(depth + 1)
        raise ValueError(f"a page header has a field of type {kind}, which none has")

    def _byte(self) -> int:
        if self.position >= len(self._content):
            raise ValueError("a page header is cut off")
        self.position += 1
        return self._content[self.position - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("a page header has a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
