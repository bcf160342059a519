"""The elements of a DICOM file that are asked for, and no others: none of a patient is ever parsed."""

from __future__ import annotations

import math
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
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
"""A deflated file states no size, and zeros shrink a thousandfold: beyond this it is not inflated."""

_PIXELS = 0x7FE00010
_ALL_PIXELS = frozenset({_PIXELS, 0x7FE00008, 0x7FE00009})  # the others are floating point
_UNDEFINED = 0xFFFFFFFF
_PIECE_BYTES = 1 << 20


class PixelElement(NamedTuple):
    """Where the pixels of a file lie: byte of its data set, number of bytes that are there, and their VR."""

    offset: int
    num_bytes: int
    vr: str


@contextmanager
def parsing() -> Iterator[None]:
    """Turn whatever pydicom raises over the bytes of a file into a DecodeError without its text.

    Such a text quotes the values that cannot be read, and they may be of a patient.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of every oddity that pydicom copes with
        try:
            yield
        except (DecodeError, OSError):
            raise
        except InvalidDicomError:
            raise DecodeError("is not a DICOM file", "not-dicom") from None
        # pydicom lets through whatever the bytes provoke, from KeyError to struct.error.
        except Exception as error:
            reason = f"cannot be parsed as DICOM ({type(error).__name__}): is it damaged?"
            raise DecodeError(reason, "unreadable") from None


@contextmanager
def opened_dicom(path: Path) -> Iterator[tuple[IO[bytes], UID]]:
    """A file at the start of its data set, and the transfer syntax that it is in.

    A deflated one is inflated to a nameless scratch file. Raises DecodeError, OSError.
    """
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        with parsing():
            syntax = _read_syntax(file)
            if syntax == DeflatedExplicitVRLittleEndian:
                file, syntax = stack.enter_context(_inflated(file)), ExplicitVRLittleEndian
        yield file, syntax


def read_elements(
    file: IO[bytes], syntax: UID, keywords: Sequence[str]
) -> tuple[Dataset, PixelElement | None]:
    """These elements of an opened file, and where its pixels are; None where there are none.

    Raises DecodeError.
    """
    found: list[tuple[int, int, int, str]] = []

    def is_pixels(tag: int, vr: str | None, length: int) -> bool:
        is_found = tag in _ALL_PIXELS
        if is_found:
            found.append((tag, file.tell(), length, vr or "OW"))
        return is_found

    with parsing():
        dataset = read_dataset(
            file,
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax != ExplicitVRBigEndian,
            stop_when=is_pixels,
            specific_tags=[Tag(keyword) for keyword in keywords],
        )
        if not found:
            return dataset, None
        # pydicom asks once more to guess whether the file tells VRs: the last answer counts.
        tag, offset, length, vr = found[-1]
        if tag != _PIXELS:
            raise DecodeError("holds pixels as floating point, which cannot be read", "unsupported")
        num_bytes_left = file.seek(0, 2) - offset
        num_bytes = num_bytes_left if length == _UNDEFINED else min(length, num_bytes_left)
        return dataset, PixelElement(offset=offset, num_bytes=num_bytes, vr=vr)


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The finite values of an element; empty where it is absent, empty or no number."""
    value = _value(dataset, keyword)
    try:
        values = [float(item) for item in (value if isinstance(value, MultiValue | list) else [value])]
    except (TypeError, ValueError, OverflowError):
        return []
    return values if all(map(math.isfinite, values)) else []


def text(dataset: Dataset, keyword: str) -> str:
    """The one text of an element; empty where it is absent, or anything else."""
    value = _value(dataset, keyword)
    return str(value) if isinstance(value, str) else ""


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty where it is absent, or none."""
    value = _value(dataset, keyword)
    return list(value) if isinstance(value, DicomSequence) else []


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    # pydicom converts the bytes only now, and whatever they provoke comes through.
    except Exception:
        return None


def _read_syntax(file: IO[bytes]) -> UID:
    read_preamble(file, force=False)
    meta = read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, *_: tag >> 16 != 2,
        specific_tags=[Tag("TransferSyntaxUID")],
    )
    syntax = text(meta, "TransferSyntaxUID")
    if not syntax:
        raise DecodeError(
            "states no transfer syntax: it cannot be known how its bytes are meant", "no-syntax"
        )
    return UID(syntax)


@contextmanager
def _inflated(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as scratch:
        inflator = zlib.decompressobj(-zlib.MAX_WBITS)
        while piece := inflator.unconsumed_tail or file.read(_PIECE_BYTES):
            scratch.write(inflator.decompress(piece, _PIECE_BYTES))
            if scratch.tell() > MAX_INFLATED_BYTES:
                reason = f"inflates to more than {MAX_INFLATED_BYTES:,} bytes, the most that is inflated"
                raise DecodeError(reason, "too-large")
            if inflator.eof:
                break
        scratch.seek(0)
        yield scratch
