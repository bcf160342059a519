"""Reading selected DICOM elements only: elements about the patient are never parsed."""

from __future__ import annotations

import math
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any, Literal, NamedTuple

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from vidlat.errors import DecodeError

MAX_INFLATED_BYTES = 1 << 30
"""Deflated files declare no size, and zeros compress by a thousand: inflating stops at this size."""

_PIXELS = 0x7FE00010
_ALL_PIXELS = frozenset({_PIXELS, 0x7FE00008, 0x7FE00009})  # the other two hold floating point
_UNDEFINED = 0xFFFFFFFF
_PIECE_BYTES = 1 << 20
_PREAMBLE_BYTES = 132  # with the letters DICM at its end
_HEAD_BYTES = 1024
_LONG_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
_SHORT_VRS = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST"),
    *("TM", "UI", "UL", "US"),
)
_MAX_FIRST_BYTES = 1 << 16
_NUM_FIRST, _FIRST_GROUPS = 3, (0x0002, 0x0008)


class PixelElement(NamedTuple):
    """Where the pixels lie: offset in the data set, number of bytes present, and VR."""

    offset: int
    num_bytes: int
    vr: str


class Elements(NamedTuple):
    """What was read of a file: elements, transfer syntax, and where its pixels lie, None without pixels."""

    dataset: Dataset
    syntax: UID
    pixels: PixelElement | None


def is_dicom(head: bytes) -> bool:
    """Whether a file is DICOM; head: its first bytes, 1024 suffice.

    Files of old exports and research tools have no preamble: those are recognised by their first elements.
    """
    return head[128:132] == b"DICM" or _syntax_of(head) is not None


@contextmanager
def parsing() -> Iterator[None]:
    """Turn every exception that pydicom raises over a file's bytes into a DecodeError without its message.

    The message would quote unreadable values, which may be patient data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of every irregularity that it handles
        try:
            yield
        except (DecodeError, OSError):
            raise
        # Damaged bytes make pydicom raise anything, from KeyError to struct.error.
        except Exception as error:
            reason = f"cannot be parsed as DICOM ({type(error).__name__}): the file is damaged"
            raise DecodeError(reason, "unreadable") from None


@contextmanager
def data_set(file: IO[bytes]) -> Iterator[tuple[IO[bytes], UID]]:
    """Yield a file at the start of its data set, with its transfer syntax.

    Deflated files are inflated to an unnamed temporary file. Raises DecodeError, OSError.
    """
    with ExitStack() as stack:
        with parsing():
            syntax = _read_syntax(file)
            if syntax == DeflatedExplicitVRLittleEndian:
                file, syntax = stack.enter_context(_inflated(file)), ExplicitVRLittleEndian
        yield file, syntax


def read_elements(opened: IO[bytes], keywords: Sequence[str]) -> Elements:
    """Read the named elements of an opened file, and find its pixels. Raises DecodeError, OSError."""
    found: list[tuple[int, int, int, str]] = []

    def is_pixels(tag: int, vr: str | None, length: int) -> bool:
        is_found = tag in _ALL_PIXELS
        if is_found:
            found.append((tag, file.tell(), length, vr or "OW"))
        return is_found

    with data_set(opened) as (file, syntax), parsing():
        dataset = read_dataset(
            file,
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax != ExplicitVRBigEndian,
            stop_when=is_pixels,
            specific_tags=[Tag(keyword) for keyword in keywords],
        )
        if not found:
            return Elements(dataset, syntax, None)
        # pydicom calls this once more to guess whether VRs are explicit: the last call counts.
        tag, offset, length, vr = found[-1]
        if tag != _PIXELS:
            raise DecodeError("holds floating point pixels; expected integer PixelData", "unsupported")
        if length == _UNDEFINED and not syntax.is_encapsulated:
            reason = (
                "holds compressed pixels, and declares no transfer syntax that says how they are compressed"
            )
            raise DecodeError(reason, "no-syntax")
        num_bytes_left = file.seek(0, 2) - offset
        num_bytes = num_bytes_left if length == _UNDEFINED else min(length, num_bytes_left)
        return Elements(dataset, syntax, PixelElement(offset, num_bytes, vr))


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The values of a numeric element; empty where absent, empty, not numeric or not finite."""
    value = _value(dataset, keyword)
    try:
        values = [float(item) for item in (value if isinstance(value, MultiValue | list) else [value])]
    except (TypeError, ValueError, OverflowError):
        return []
    return values if all(map(math.isfinite, values)) else []


def text(dataset: Dataset, keyword: str) -> str:
    """The value of a text element; empty where absent, or not a single text."""
    value = _value(dataset, keyword)
    return str(value) if isinstance(value, str) else ""


def items(dataset: Dataset, keyword: str, *inner: str) -> list[Dataset]:
    """The items of a sequence, or those of sequences inside them; empty where absent or not a sequence."""
    value = _value(dataset, keyword)
    outer = list(value) if isinstance(value, DicomSequence) else []
    return [item for part in outer for item in items(part, *inner)] if inner else outer


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    # pydicom converts the bytes only now, and damaged ones make it raise anything.
    except Exception:
        return None


def _read_syntax(file: IO[bytes]) -> UID:
    """Read the transfer syntax, and leave the file at the start of its data set.

    Without a meta group, the first elements tell it.
    """
    head = file.read(_HEAD_BYTES)
    if not is_dicom(head):
        reason = "not a DICOM file: expected DICM at byte 128, or a data set from the first byte on"
        raise DecodeError(reason, "not-dicom")
    start = _PREAMBLE_BYTES if head[128:132] == b"DICM" else 0
    file.seek(start)
    meta = read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, *_: tag >> 16 != 2,
        specific_tags=[Tag("TransferSyntaxUID")],
    )
    declared = text(meta, "TransferSyntaxUID")
    if declared:
        return UID(declared)
    # pydicom may have gone beyond the first element to guess whether VRs are explicit.
    start = file.tell() if head[start : start + 2] == b"\2\0" else start
    file.seek(start)
    syntax = _syntax_of(file.read(_HEAD_BYTES))
    file.seek(start)
    if syntax is None:
        raise DecodeError("declares no transfer syntax (0002,0010), so its data cannot be read", "no-syntax")
    return syntax


def _syntax_of(data: bytes) -> UID | None:
    """The uncompressed transfer syntax in which the first elements of a data set make sense, if any."""
    syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
    return next((syntax for syntax in syntaxes if _starts_data_set(data, syntax)), None)


def _starts_data_set(data: bytes, syntax: UID) -> bool:
    """Whether data starts with elements of the meta or the first group, in order and of plausible lengths."""
    order: Literal["big", "little"] = "big" if syntax == ExplicitVRBigEndian else "little"
    first_group, previous, place = int.from_bytes(data[:2], order), 0, 0
    if first_group not in _FIRST_GROUPS:
        return False
    for _ in range(_NUM_FIRST):
        if place + 12 > len(data):
            return False
        group, element = (int.from_bytes(data[at : at + 2], order) for at in (place, place + 2))
        vr = data[place + 4 : place + 6].decode("latin-1")
        if syntax == ImplicitVRLittleEndian:
            start, num_length_bytes = place + 8, 4
        elif vr in _LONG_VRS:
            start, num_length_bytes = place + 12, 4
        elif vr in _SHORT_VRS:
            start, num_length_bytes = place + 8, 2
        else:
            return False
        num_bytes = int.from_bytes(data[start - num_length_bytes : start], order)
        tag = group << 16 | element
        if group != first_group or tag < previous or num_bytes % 2 or num_bytes > _MAX_FIRST_BYTES:
            return False
        previous, place = tag + 1, start + num_bytes
    return True


@contextmanager
def _inflated(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as scratch:
        inflator = zlib.decompressobj(-zlib.MAX_WBITS)
        while piece := inflator.unconsumed_tail or file.read(_PIECE_BYTES):
            scratch.write(inflator.decompress(piece, _PIECE_BYTES))
            if scratch.tell() > MAX_INFLATED_BYTES:
                reason = f"inflates to more than {MAX_INFLATED_BYTES:,} bytes, the limit"
                raise DecodeError(reason, "too-large")
            if inflator.eof:
                break
        scratch.seek(0)
        yield scratch
