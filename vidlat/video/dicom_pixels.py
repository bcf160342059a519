"""The stored pixels of a DICOM file, frame by frame: found here, decoded by pydicom and its plugins.

No more is decoded of a frame than its file's header states, and frames that the file lost count as a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate, parse_basic_offsets
from pydicom.pixels import get_decoder
from pydicom.uid import UID, RLELossless

from vidlat.errors import DecodeError
from vidlat.types import Warn
from vidlat.video.dicom_elements import PixelElement, numbers, opened_dicom, text
from vidlat.video.pixels import Pixels
from vidlat.video.untrusted import check_frame_size

FORMAT_KEYWORDS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "PixelRepresentation"),
)
"""The elements that `read_pixel_format` needs."""

_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3}
_SAMPLES |= {f"YBR_{kind}": 3 for kind in ("FULL", "FULL_422", "ICT", "RCT")}
_JP2, _JP2_CODESTREAM = b"\0\0\0\x0cjP  ", b"jp2c"
_SOC_SIZ = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF markers; F7 is that of JPEG-LS
_LONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # that no length follows
_ITEM, _END_OF_ITEMS, _END_OF_PICTURE = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xd9"


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """How the pixels of a file are stored, and where.

    samples: a pixel, 1 or 3. num_frames: as stated, 1 where nothing is; None where it makes no sense.
    """

    syntax: UID
    element: PixelElement
    num_frames: int | None
    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a sample."""
        return np.dtype(f"{'i' if self.is_signed else 'u'}{max(1, self.bits_allocated // 8)}")

    @property
    def frame_bits(self) -> int:
        """Of a frame that is not compressed."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated


def read_pixel_format(dataset: Dataset, element: PixelElement | None, syntax: UID) -> PixelFormat:
    """What the header says of the pixels; raises DecodeError where it makes no sense or they are too many."""
    if element is None or "Rows" not in dataset:
        raise DecodeError("is a DICOM file without pixel data, or cut off before them", "no-pixels")
    photometric = text(dataset, "PhotometricInterpretation")
    pixel_format = PixelFormat(
        syntax=syntax,
        element=element,
        num_frames=_num_frames(dataset),
        rows=_integer(dataset, "Rows"),
        columns=_integer(dataset, "Columns"),
        samples=_integer(dataset, "SamplesPerPixel"),
        photometric=photometric,
        planar=_integer(dataset, "PlanarConfiguration", default=0),
        bits_allocated=_integer(dataset, "BitsAllocated"),
        bits_stored=_integer(dataset, "BitsStored"),
        is_signed=_integer(dataset, "PixelRepresentation", default=0) == 1,
    )
    if _SAMPLES.get(photometric) != pixel_format.samples:
        known = ", ".join(f"{name} ({samples})" for name, samples in _SAMPLES.items())
        reason = "states a photometric interpretation, or samples a pixel, that cannot be read"
        raise DecodeError(f"{reason}: expected {known}", "unsupported")
    if pixel_format.bits_allocated not in (1, 8, 16, 32, 64):
        reason = f"states {pixel_format.bits_allocated} bits a sample; expected 1, 8, 16, 32 or 64"
        raise DecodeError(reason, "unsupported")
    if min(pixel_format.rows, pixel_format.columns) < 1:
        size = f"{pixel_format.columns}x{pixel_format.rows}"
        raise DecodeError(f"states frames of {size} pixels", "unreadable")
    check_frame_size(pixel_format.columns, pixel_format.rows)
    return pixel_format


def stored_frames(path: Path, pixel_format: PixelFormat, warn: Warn) -> Iterator[Pixels]:
    """Yield every whole frame as stored, (H, W) or, RGB of any colour, (H, W, 3).

    warn: told, in the end, where there are not as many as stated. Raises DecodeError where there is none, and
    whatever pydicom raises over one.
    """
    decode = _decoder(pixel_format)
    num_frames = 0
    with opened_dicom(path) as (file, _):
        file.seek(pixel_format.element.offset)
        if pixel_format.syntax.is_encapsulated:
            frames = (decode(encapsulate([data]), 0, 1) for data in _compressed_frames(file, pixel_format))
        else:
            num_whole = _num_whole_frames(pixel_format, warn)
            frames = (decode(file, index, num_whole) for index in range(num_whole))
        for pixels in frames:
            yield pixels
            num_frames += 1
    stated = pixel_format.num_frames
    if not num_frames:
        raise DecodeError("truncated within its first frame", "truncated")
    if stated is None and num_frames > 1:
        warn(f"states no number of frames that makes sense: {num_frames} are there")
    elif stated is not None and num_frames < stated:
        warn(f"only {num_frames} of the {stated} frames that its header states: truncated?")
    elif stated is not None and num_frames > stated:
        warn(f"holds {num_frames} frames, {stated} by its header: all are read")


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    values = [int(value) for value in numbers(dataset, keyword) if value == int(value)]
    if not values and default is None:
        raise DecodeError(f"states no {keyword}, or none that makes sense", "unreadable")
    return values[0] if values else cast(int, default)


def _num_frames(dataset: Dataset) -> int | None:
    if "NumberOfFrames" not in dataset:
        return 1
    values = numbers(dataset, "NumberOfFrames")
    return int(values[0]) if len(values) == 1 and values[0] >= 1 else None


def _decoder(pixel_format: PixelFormat) -> Callable[[Any, int, int], Pixels]:
    """What decodes one of so many frames of a file at its pixels, or of encapsulated bytes."""
    syntax = pixel_format.syntax
    name = syntax.name if syntax.is_transfer_syntax else "no registered transfer syntax"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise DecodeError(f"is compressed as {name}, which cannot be read", "unsupported") from error
    plugins = (line.partition(" - requires ")[2] for line in decoder.missing_dependencies)
    # As the package index calls them; numpy is there.
    packages = [name.removeprefix("numpy and ").replace("gdcm>", "python-gdcm>") for name in plugins]
    choices = " or ".join(reversed(packages))
    missing_plugin = DecodeError(f"is compressed as {name}: to read it, install {choices}", "missing-plugin")
    if not decoder.is_available:
        raise missing_plugin
    options = {
        "rows": pixel_format.rows,
        "columns": pixel_format.columns,
        "samples_per_pixel": pixel_format.samples,
        "photometric_interpretation": pixel_format.photometric,
        "planar_configuration": pixel_format.planar,
        "bits_allocated": pixel_format.bits_allocated,
        "bits_stored": pixel_format.bits_stored,
        "pixel_representation": int(pixel_format.is_signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": pixel_format.element.vr,
    }

    def decode(source: Any, index: int, num_frames: int) -> Pixels:
        try:
            # Never several frames by one call: pydicom 3.0 corrects signs in memory it may not write to, and
            # takes the second frame of an uncompressed YBR_FULL_422 from a wrong place.
            pixels: Pixels
            pixels, _ = decoder.as_array(source, index=index, number_of_frames=num_frames, **options)
        except RuntimeError as error:
            # Pillow reads JPEG of 8 bits, not of 12: present and yet not enough.
            if "does not support" in str(error):
                raise missing_plugin from error
            if "truncated" in str(error):
                raise DecodeError("truncated within a frame", "truncated") from error
            raise
        return pixels

    return decode


def _num_whole_frames(pixel_format: PixelFormat, warn: Warn) -> int:
    """How many frames to read where they are not compressed."""
    num_bytes = pixel_format.element.num_bytes
    num_whole = 8 * num_bytes // pixel_format.frame_bits
    if not num_whole:
        reason = f"truncated: {num_bytes} of {-(-pixel_format.frame_bits // 8)} bytes of its first frame"
        raise DecodeError(reason, "truncated")
    num_frames = pixel_format.num_frames or num_whole
    if num_bytes - num_frames * pixel_format.frame_bits / 8 >= 2:  # one byte makes an odd number even
        warn("holds more data than its header declares: the rest is ignored")
    return min(num_whole, num_frames)


def _compressed_frames(file: IO[bytes], pixel_format: PixelFormat) -> Iterator[bytes]:
    """The bytes of every frame that is there as a whole, joined from its fragments."""
    offsets = parse_basic_offsets(file)
    starts = {file.tell() + offset for offset in offsets}
    fragments, is_cut = _fragments(file, pixel_format.element)
    ends = _frame_ends(file, fragments, starts, pixel_format)
    if fragments:
        # What a file that breaks off has lost may have belonged to its last frame.
        ends[-1] |= not is_cut or _ends_picture(file, *fragments[-1])
    pending, num_frames = bytearray(), 0
    for (place, num_bytes), is_end in zip(fragments, ends, strict=True):
        file.seek(place)
        pending += file.read(num_bytes)
        if is_end:
            data = bytes(pending)
            _check_size(data, pixel_format, num_frames)
            yield data
            pending, num_frames = bytearray(), num_frames + 1


def _fragments(file: IO[bytes], element: PixelElement) -> tuple[list[tuple[int, int]], bool]:
    """Place and length of every fragment that is there as a whole, and whether the file breaks off after."""
    fragments: list[tuple[int, int]] = []
    while True:
        head = file.read(8)
        if head[:4] == _END_OF_ITEMS:
            return fragments, False
        place, num_bytes = file.tell(), int.from_bytes(head[4:], "little")
        if head[:4] != _ITEM or len(head) < 8 or place + num_bytes > element.offset + element.num_bytes:
            return fragments, True
        fragments.append((place, num_bytes))
        file.seek(num_bytes, 1)


def _frame_ends(
    file: IO[bytes], fragments: list[tuple[int, int]], starts: set[int], pixel_format: PixelFormat
) -> list[bool]:
    """Whether a frame ends with each fragment. starts: of frames, as the offset table has them."""
    all_end = [True for _ in fragments]
    if pixel_format.syntax == RLELossless or len(fragments) == pixel_format.num_frames:
        return all_end
    there = {place - 8 for place, _ in fragments}
    # Tables of nothing but a zero are common, and so are wrong ones.
    if len(starts) > 1 and {start for start in starts if start <= max(there, default=0)} <= there:
        return [place + num_bytes in starts for place, num_bytes in fragments]
    ends = [_ends_picture(file, *fragment) for fragment in fragments]
    return ends if any(ends) or pixel_format.num_frames == 1 else all_end


def _ends_picture(file: IO[bytes], place: int, num_bytes: int) -> bool:
    num_last = min(num_bytes, 10)  # padding may follow the mark
    file.seek(place + num_bytes - num_last)
    return _END_OF_PICTURE in file.read(num_last)


def _check_size(data: bytes, pixel_format: PixelFormat, index: int) -> None:
    """Raise DecodeError for a frame that would become, or is, far more than its header states."""
    if pixel_format.syntax == RLELossless:
        # A byte that does not repeat needs no more than two.
        if len(data) > 128 + 2 * pixel_format.frame_bits // 8:
            reason = f"frame {index} takes {len(data)} bytes, uncompressed {pixel_format.frame_bits // 8}"
            raise DecodeError(f"{reason}: is it damaged?", "wrong-size")
        return
    size = codestream_size(data)
    if size is None:
        raise DecodeError(f"frame {index} is no JPEG or JPEG 2000 picture: is it damaged?", "unreadable")
    if size != (pixel_format.columns, pixel_format.rows):
        stated = f"{pixel_format.columns}x{pixel_format.rows}"
        reason = f"frame {index} is a picture of {size[0]}x{size[1]} pixels, its header states {stated}"
        raise DecodeError(reason, "wrong-size")


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None where the bytes are no such picture or break off before they say."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    start = _jp2_codestream(data) if data.startswith(_JP2) else 0
    if data[start : start + 4] != _SOC_SIZ or len(data) < start + 24:
        return None
    right, bottom, left, top = (_number(data, start + place, 4) for place in (8, 12, 16, 20))
    return right - left, bottom - top


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0x00, 0xFF):  # what decoders skip on their way to a marker
            place += 1
        elif marker in _FRAME_HEADERS:
            return _number(data, place + 7, 2), _number(data, place + 5, 2)
        else:
            place += 2 + (0 if marker in _LONE_MARKERS else _number(data, place + 2, 2))
    return None


def _jp2_codestream(data: bytes) -> int:
    """Where the codestream starts among the boxes of a JP2 file; the end of the data where there is none."""
    place = 0
    while place + 16 <= len(data):
        num_bytes, content = _number(data, place, 4), place + 8
        if num_bytes == 1:
            num_bytes, content = _number(data, place + 8, 8), place + 16
        if data[place + 4 : place + 8] == _JP2_CODESTREAM:
            return content
        if num_bytes < 8:
            break
        place += num_bytes
    return len(data)


def _number(data: bytes, place: int, num_bytes: int) -> int:
    return int.from_bytes(data[place : place + num_bytes], "big")
