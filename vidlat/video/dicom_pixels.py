"""The stored pixels of a DICOM file, frame by frame: located here, decoded by pydicom and its plugins.

Frames larger than the header declares are refused before decoding; missing frames are a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate, parse_basic_offsets
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGBaseline8Bit, MPEGTransferSyntaxes, RLELossless

from vidlat.errors import DecodeError
from vidlat.types import Warn
from vidlat.video.dicom_elements import Elements, PixelElement, data_set, numbers, parsing, text
from vidlat.video.pixels import Pixels
from vidlat.video.untrusted import check_frame_size

FORMAT_KEYWORDS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "PixelRepresentation"),
)
"""The elements that `read_pixel_format` needs."""

NO_PIXELS = "DICOM file without pixel data, or truncated before it"

_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3}
_SAMPLES |= {f"YBR_{kind}": 3 for kind in ("FULL", "FULL_422", "ICT", "RCT")}
_JP2, _JP2_CODESTREAM = b"\0\0\0\x0cjP  ", b"jp2c"
_SOC_SIZ = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF markers; F7 is that of JPEG-LS
_START_OF_SCAN, _ADOBE_MARKER = 0xDA, 0xEE
_LONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_ITEM, _END_OF_ITEMS, _END_OF_PICTURE = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xd9"


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """How and where a file stores its pixels.

    samples: per pixel, 1 or 3. num_frames: as declared, 1 where absent, None where invalid. declares_frames:
    whether it was declared, validly or not.
    """

    syntax: UID
    element: PixelElement
    num_frames: int | None
    declares_frames: bool
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
        """The dtype of a sample."""
        return np.dtype(f"{'i' if self.is_signed else 'u'}{max(1, self.bits_allocated // 8)}")

    @property
    def frame_bits(self) -> int:
        """The size of an uncompressed frame."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated


def is_video_syntax(syntax: UID) -> bool:
    """Whether pixels are one stream of MPEG-2, H.264 or HEVC instead of a picture per frame."""
    return syntax in MPEGTransferSyntaxes


def read_pixel_format(elements: Elements) -> PixelFormat:
    """Read the pixel format from a header. Raises DecodeError where it is invalid or frames are too large."""
    dataset = elements.dataset
    if elements.pixels is None or "Rows" not in dataset:
        raise DecodeError(NO_PIXELS, "no-pixels")
    photometric = text(dataset, "PhotometricInterpretation")
    pixel_format = PixelFormat(
        syntax=elements.syntax,
        element=elements.pixels,
        num_frames=_num_frames(dataset),
        declares_frames="NumberOfFrames" in dataset,
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
        reason = f"unsupported photometric interpretation with {pixel_format.samples} samples per pixel"
        raise DecodeError(f"{reason}: expected {known}", "unsupported")
    if pixel_format.bits_allocated not in (1, 8, 16, 32, 64):
        reason = f"{pixel_format.bits_allocated} bits per sample; expected 1, 8, 16, 32 or 64"
        raise DecodeError(reason, "unsupported")
    if min(pixel_format.rows, pixel_format.columns) < 1:
        size = f"{pixel_format.columns}x{pixel_format.rows}"
        raise DecodeError(f"its header declares frames of {size} pixels; expected at least 1x1", "unreadable")
    check_frame_size(pixel_format.columns, pixel_format.rows)
    return pixel_format


def stored_frames(
    path: Path, pixel_format: PixelFormat, warn: Warn, order: Sequence[int] | None = None
) -> Iterator[tuple[int, Pixels]]:
    """Yield every complete frame as stored, gray (H, W) or RGB (H, W, 3), with its index in the file.

    order: the frames to yield, those that are there; None for all as stored. The pixel data decides how many
    there are. At the end, warns where the header states another number. Raises DecodeError where there is no
    frame, and whatever pydicom raises over one.
    """
    decode = _decoder(pixel_format)
    with path.open("rb") as opened, data_set(opened) as (file, _):
        layout = _layout(file, pixel_format) if pixel_format.syntax.is_encapsulated else None
        num_frames = _num_whole_frames(pixel_format) if layout is None else len(layout)
        if layout is None:
            _check_length(pixel_format, num_frames, warn)
        elif not layout:
            raise DecodeError("truncated within its first frame: copy the file again", "truncated")
        for index in range(num_frames) if order is None else order:
            if index >= num_frames:
                continue
            if layout is None:
                file.seek(pixel_format.element.offset)
                yield index, decode(file, index, num_frames)
            else:
                data = b"".join(_read(file, *fragment) for fragment in layout[index])
                _check_size(data, pixel_format, index)
                yield index, decode(encapsulate([data]), 0, 1, **_jpeg_colour(data, pixel_format))
    stated = pixel_format.num_frames
    if stated is None and num_frames > 1:
        warn(f"its number of frames is invalid: {num_frames} are read")
    elif stated is not None and num_frames < stated:
        warn(f"only {num_frames} of the {stated} frames that its header declares: truncated?")
    elif stated is not None and num_frames > stated:
        declared = f"declares {stated}" if pixel_format.declares_frames else "does not say how many"
        which = "all" if order is None else "those in its functional groups"
        warn(f"holds {num_frames} frames, its header {declared}: {which} are read")


def num_stored_frames(path: Path, pixel_format: PixelFormat) -> int:
    """The number of complete frames in the pixel data, whatever the header says. Raises as pydicom does."""
    if not pixel_format.syntax.is_encapsulated:
        return _num_whole_frames(pixel_format)
    with path.open("rb") as opened, data_set(opened) as (file, _):
        return len(_layout(file, pixel_format))


def holds_several_frames(file: IO[bytes], elements: Elements) -> bool:
    """Whether there are several frames by the header, or by the pixel data where the header is silent.

    file: what the elements were read from.
    """
    if elements.pixels is None:
        return False
    if max(numbers(elements.dataset, "NumberOfFrames"), default=1) > 1 or is_video_syntax(elements.syntax):
        return True
    try:
        pixel_format = read_pixel_format(elements)
    except DecodeError:
        return False
    if not pixel_format.syntax.is_encapsulated:
        return _num_whole_frames(pixel_format) > 1
    # To find its frames takes more reads, which files that declare their number are spared.
    return not pixel_format.declares_frames and len(_layout(file, pixel_format)) > 1


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    values = [int(value) for value in numbers(dataset, keyword) if value == int(value)]
    if not values and default is None:
        raise DecodeError(f"{keyword} is missing or not a whole number: the file is damaged", "unreadable")
    return values[0] if values else cast(int, default)


def _num_frames(dataset: Dataset) -> int | None:
    if "NumberOfFrames" not in dataset:
        return 1
    values = numbers(dataset, "NumberOfFrames")
    return int(values[0]) if len(values) == 1 and values[0] >= 1 else None


def _decoder(pixel_format: PixelFormat) -> Callable[..., Pixels]:
    """A function (source, index, num_frames, **options) that decodes one frame.

    source: a file, or encapsulated bytes. options: of pydicom, beyond those by the header.
    """
    syntax = pixel_format.syntax
    name = syntax.name if syntax.is_transfer_syntax else "no registered transfer syntax"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise DecodeError(f"compressed as {name}, which is not supported", "unsupported") from error
    plugins = (line.partition(" - requires ")[2] for line in decoder.missing_dependencies)
    # By their names in the package index; numpy is installed anyway.
    packages = [name.removeprefix("numpy and ").replace("gdcm>", "python-gdcm>") for name in plugins]
    choices = " or ".join(reversed(packages))
    missing_plugin = DecodeError(f"compressed as {name}: to read it, install {choices}", "missing-plugin")
    if not decoder.is_available:
        raise missing_plugin
    options: dict[str, Any] = {
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

    def decode(source: Any, index: int, num_frames: int, **more: Any) -> Pixels:
        try:
            # One frame per call: with several, pydicom 3.0 writes to read-only memory to correct signs, and
            # reads the second frame of an uncompressed YBR_FULL_422 at a wrong offset.
            pixels: Pixels
            pixels, _ = decoder.as_array(source, index=index, number_of_frames=num_frames, **options | more)
        except RuntimeError as error:
            # Pillow reads 8-bit JPEG but not 12-bit: a plugin can be installed and still insufficient.
            if "does not support" in str(error):
                raise missing_plugin from error
            if "truncated" in str(error):
                raise DecodeError("truncated within a frame: copy the file again", "truncated") from error
            raise
        return pixels

    return decode


def _num_whole_frames(pixel_format: PixelFormat) -> int:
    """The number of complete uncompressed frames."""
    num_bits, stated = 8 * pixel_format.element.num_bytes, pixel_format.num_frames or 0
    # Padding to an even number of bytes is no frame, however small frames are.
    is_padding = 0 <= num_bits - stated * pixel_format.frame_bits < 16
    return stated if is_padding and stated else num_bits // pixel_format.frame_bits


def _check_length(pixel_format: PixelFormat, num_frames: int, warn: Warn) -> None:
    """Raise DecodeError for uncompressed data without a complete frame; warn of data after the last one."""
    num_bytes, frame_bits = pixel_format.element.num_bytes, pixel_format.frame_bits
    if not num_frames:
        reason = f"truncated: {num_bytes} of {-(-frame_bits // 8)} bytes of its first frame"
        raise DecodeError(reason, "truncated")
    if num_frames >= (pixel_format.num_frames or 1) and 8 * num_bytes - num_frames * frame_bits >= 16:
        warn("holds more data than its header declares: the rest is ignored")


def _layout(file: IO[bytes], pixel_format: PixelFormat) -> list[list[tuple[int, int]]]:
    """Offset and length of the fragments of every complete compressed frame."""
    file.seek(pixel_format.element.offset)
    offsets = parse_basic_offsets(file)
    starts = {file.tell() + offset for offset in offsets}
    fragments, rest = _fragments(file, pixel_format.element)
    ends = _frame_ends(file, fragments, starts, pixel_format)
    if fragments:
        # The lost part of a truncated file may have belonged to its last frame.
        ends[-1] |= rest is None or _ends_picture(file, *fragments[-1])
    frames, pending = [], []
    for fragment, is_end in zip(fragments, ends, strict=True):
        pending.append(fragment)
        if is_end:
            frames.append(pending)
            pending = []
    return frames


def stream_fragments(file: IO[bytes], element: PixelElement) -> list[tuple[int, int]]:
    """Offset and length of the fragments of a video stream, of which the last may be truncated.

    Raises DecodeError.
    """
    with parsing():
        file.seek(element.offset)
        parse_basic_offsets(file)
        fragments, rest = _fragments(file, element)
    return fragments if rest is None else [*fragments, rest]


def _read(file: IO[bytes], place: int, num_bytes: int) -> bytes:
    file.seek(place)
    return file.read(num_bytes)


def _fragments(
    file: IO[bytes], element: PixelElement
) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
    """Offset and length of every complete fragment, and of the rest of a truncated file after them."""
    fragments: list[tuple[int, int]] = []
    end = element.offset + element.num_bytes
    while True:
        head = file.read(8)
        if head[:4] == _END_OF_ITEMS:
            return fragments, None
        place, num_bytes = file.tell(), int.from_bytes(head[4:], "little")
        if head[:4] != _ITEM or len(head) < 8 or place + num_bytes > end:
            return fragments, (place, max(0, end - place) if head[:4] == _ITEM else 0)
        fragments.append((place, num_bytes))
        file.seek(num_bytes, 1)


def _frame_ends(
    file: IO[bytes], fragments: list[tuple[int, int]], starts: set[int], pixel_format: PixelFormat
) -> list[bool]:
    """Whether each fragment ends a frame; starts: the frames' offsets by the offset table."""
    all_end = [True for _ in fragments]
    if pixel_format.syntax == RLELossless or len(fragments) == pixel_format.num_frames:
        return all_end
    there = {place - 8 for place, _ in fragments}
    # Offset tables with a single zero are common, and so are wrong ones.
    if len(starts) > 1 and {start for start in starts if start <= max(there, default=0)} <= there:
        return [place + num_bytes in starts for place, num_bytes in fragments]
    ends = [_ends_picture(file, *fragment) for fragment in fragments]
    return ends if any(ends) or pixel_format.num_frames == 1 else all_end


def _ends_picture(file: IO[bytes], place: int, num_bytes: int) -> bool:
    num_last = min(num_bytes, 10)  # padding may follow the end mark
    return _END_OF_PICTURE in _read(file, place + num_bytes - num_last, num_last)


def _check_size(data: bytes, pixel_format: PixelFormat, index: int) -> None:
    """Raise DecodeError for a frame that is, or decodes to, far more data than its header declares."""
    if pixel_format.syntax == RLELossless:
        # RLE takes at most two bytes per byte.
        if len(data) > 128 + 2 * pixel_format.frame_bits // 8:
            num_bytes = pixel_format.frame_bits // 8
            reason = (
                f"frame {index} has {len(data)} compressed bytes for {num_bytes} of pixels: it is damaged"
            )
            raise DecodeError(reason, "wrong-size")
        return
    size = codestream_size(data)
    if size is None:
        raise DecodeError(f"frame {index} is not a JPEG or JPEG 2000 image: it is damaged", "unreadable")
    if size != (pixel_format.columns, pixel_format.rows):
        stated = f"{pixel_format.columns}x{pixel_format.rows}"
        reason = f"frame {index} has {size[0]}x{size[1]} pixels; expected {stated} by the file's header"
        raise DecodeError(reason, "wrong-size")


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, JPEG-LS or JPEG 2000 image declares; None if it is none or truncated."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    start = _jp2_codestream(data) if data.startswith(_JP2) else 0
    if data[start : start + 4] != _SOC_SIZ or len(data) < start + 24:
        return None
    right, bottom, left, top = (_number(data, start + place, 4) for place in (8, 12, 16, 20))
    return right - left, bottom - top


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    for marker, place in _jpeg_markers(data):
        if marker in _FRAME_HEADERS and place + 9 <= len(data):
            return _number(data, place + 7, 2), _number(data, place + 5, 2)
    return None


def _jpeg_colour(data: bytes, pixel_format: PixelFormat) -> dict[str, Any]:
    """Options of pydicom for a JPEG whose own colour space is not the one that the header states.

    pydicom itself sees to JFIF and to components named R, G and B.
    """
    if pixel_format.samples != 3 or not data.startswith(b"\xff\xd8"):
        return {}
    for marker, place in _jpeg_markers(data):
        if marker == _ADOBE_MARKER and data[place + 4 : place + 9] == b"Adobe":
            # Pillow converts by this segment and returns RGB, which pydicom would convert again.
            is_by_pillow = pixel_format.syntax == JPEGBaseline8Bit
            return {"as_rgb": False, "decoding_plugin": "pillow"} if is_by_pillow else {}
        if marker in _FRAME_HEADERS:
            sampling = data[place + 11 : place + 20 : 3]
            # RGB is never subsampled, whatever the header states.
            is_subsampled = len(set(sampling)) > 1 and pixel_format.photometric == "RGB"
            return {"photometric_interpretation": "YBR_FULL"} if is_subsampled else {}
    return {}


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers before the first scan, with their places."""
    place = 2
    while place + 4 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0x00, 0xFF):  # decoders skip these before a marker
            place += 1
            continue
        yield marker, place
        if marker == _START_OF_SCAN:
            return
        place += 2 + (0 if marker in _LONE_MARKERS else _number(data, place + 2, 2))


def _jp2_codestream(data: bytes) -> int:
    """Offset of the codestream in a JP2 file; the length of the data where there is none."""
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
