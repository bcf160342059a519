"""One-frame and multi-frame DICOM through pydicom, frame by frame. Only pixels, timing and size are read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, get_decoder, iter_pixels
from pydicom.uid import UID, JPEG2000TransferSyntaxes

from vidlat.errors import DecodeError
from vidlat.types import Frame
from vidlat.video.container import MAX_FRAME_PIXELS

HOUNSFIELD_RANGE = (-1000.0, 1000.0)
"""CT values are cut to this range, the one MAISI was trained on."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_PALETTES = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
# Nothing else is parsed, so that no patient data enters the process.
_TAGS = [
    *("Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "PixelAspectRatio"),
    *("RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"),
    *(f"{palette}Descriptor" for palette in _PALETTES),
    *(f"{palette}Data" for palette in _PALETTES),
    *(f"Segmented{palette}Data" for palette in _PALETTES),
]
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # the tag (7FE0,0010) in either byte order


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with these bytes (132 are enough) is a DICOM file."""
    return head[128:132] == b"DICM"


def read_dicom(path: Path) -> Iterator[Frame]:
    """Yield every frame as gray: MONOCHROME1 inverted, colour as BT.601 luma.

    Eight stored bits come as uint8, anything else as float32 in [0, 1]: CT by HOUNSFIELD_RANGE after its
    rescale, the rest by the whole range of the stored bits. The time comes from FrameTime,
    FrameTimeVector, CineRate or RecommendedDisplayFrameRate, the first that makes sense. Raises DecodeError.
    """
    frames = _read(path)
    while (frame := _next(frames)) is not None:
        yield frame


def _next(frames: Iterator[Frame]) -> Frame | None:
    with warnings.catch_warnings():
        # pydicom warns of every oddity it copes with; what it does not cope with raises.
        warnings.simplefilter("ignore")
        try:
            return next(frames, None)
        except DecodeError:
            raise
        except InvalidDicomError as error:
            raise DecodeError("is not a DICOM file", "not-dicom") from error
        # pydicom lets through whatever the bytes provoke, from KeyError to struct.error.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DecodeError(f"cannot be decoded as DICOM: {reason}", "unreadable") from error


def _read(path: Path) -> Iterator[Frame]:
    header = _read_header(path)
    num_frames = _num_frames(header)
    aspect = _sample_aspect_ratio(header)
    num_decoded = 0
    for pixels, seconds in zip(_iter_pixels(path, header), _frame_times(header), strict=False):
        gray = _to_gray(pixels, header, num_decoded)
        yield Frame(pixels=gray, pts_seconds=seconds, sample_aspect_ratio=aspect)
        num_decoded += 1
    if num_decoded < num_frames:
        raise DecodeError(f"ends after {num_decoded} of {num_frames} frames", "truncated")


def _read_header(path: Path) -> Dataset:
    with path.open("rb") as file:
        header = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
        syntax = header.file_meta.TransferSyntaxUID
        # A deflated file is inflated as a whole: where it stands then says nothing.
        at_pixels = syntax.is_deflated or file.read(4) in _PIXEL_DATA
        num_bytes_left = path.stat().st_size - file.tell()
    if "Rows" not in header or not at_pixels:
        raise DecodeError("is a DICOM file without pixel data", "no-pixels")
    num_pixels = header.Rows * header.Columns
    if num_pixels > MAX_FRAME_PIXELS:
        size = f"{header.Columns}x{header.Rows}"
        reason = f"frames of {size} pixels; at most {MAX_FRAME_PIXELS:,} pixels are decoded"
        raise DecodeError(reason, "too-large")
    if not (syntax.is_encapsulated or syntax.is_deflated):
        samples = 2 if header.PhotometricInterpretation == "YBR_FULL_422" else header.SamplesPerPixel
        num_bytes = _num_frames(header) * num_pixels * samples * header.BitsAllocated // 8
        if num_bytes_left < num_bytes:
            raise DecodeError(f"breaks off: {num_bytes_left} of {num_bytes} bytes of pixels", "truncated")
    return header


def _iter_pixels(path: Path, header: Dataset) -> Iterator[npt.NDArray[Any]]:
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise DecodeError(f"is compressed as {syntax.name}, which cannot be read", "unsupported") from error
    if not decoder.is_available:
        raise _missing_plugin(syntax, decoder.missing_dependencies)
    # pydicom 3.0 corrects the signs of JPEG 2000 in memory it may not write to, unless asked by index.
    indices = range(_num_frames(header)) if syntax in JPEG2000TransferSyntaxes else None
    try:
        yield from iter_pixels(dcmread(path) if syntax.is_deflated else path, indices=indices)
    except RuntimeError as error:
        # Pillow reads JPEG of 8 bits, not of 12: present and yet not enough.
        if "does not support" in str(error):
            raise _missing_plugin(syntax, decoder.missing_dependencies) from error
        if "truncated" in str(error):
            raise DecodeError("breaks off within a frame", "truncated") from error
        raise


def _missing_plugin(syntax: UID, missing_dependencies: list[str]) -> DecodeError:
    packages = [line.partition(" - requires ")[2] for line in missing_dependencies]
    choices = " or ".join(package.replace("gdcm>", "python-gdcm>") for package in reversed(packages))
    return DecodeError(f"is compressed as {syntax.name}: to read it, install {choices}", "missing-plugin")


def _to_gray(pixels: npt.NDArray[Any], header: Dataset, index: int) -> npt.NDArray[Any]:
    bits, signed = int(header.BitsStored), bool(header.get("PixelRepresentation"))
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
        bits, signed = 8 * pixels.dtype.itemsize, False
    # pydicom has made RGB of every YBR by now.
    values = pixels.astype(np.float32)
    if values.ndim == 3:
        values = values[..., :3] @ _LUMA
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    if bits == 8 and not signed:
        gray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return 255 - gray if inverted else gray
    if header.get("Modality") == "CT" and bits > 8:
        slope, intercept = _rescale(header, index)
        values = values * np.float32(slope) + np.float32(intercept)
        low, high = HOUNSFIELD_RANGE
    else:
        low = -(2.0 ** (bits - 1)) if signed else 0.0
        high = low + 2.0**bits - 1
    unit: npt.NDArray[np.float32] = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return 1 - unit if inverted else unit


def _rescale(header: Dataset, index: int) -> tuple[float, float]:
    """Slope and intercept of a frame: its own, else those of all frames, else the file's, else none."""
    for group in (
        *header.get("PerFrameFunctionalGroupsSequence", [])[index : index + 1],
        *header.get("SharedFunctionalGroupsSequence", []),
    ):
        for transformation in group.get("PixelValueTransformationSequence", []):
            return float(transformation.RescaleSlope), float(transformation.RescaleIntercept)
    slope, intercept = _numbers(header, "RescaleSlope"), _numbers(header, "RescaleIntercept")
    return (slope[0], intercept[0]) if slope and intercept else (1.0, 0.0)


def _frame_times(header: Dataset) -> Iterator[float | None]:
    steps = _frame_steps(header)
    if not steps:
        yield from repeat(None)
    seconds = 0.0
    for index in count(1):
        yield seconds
        seconds += steps[min(index, len(steps) - 1)]


def _frame_steps(header: Dataset) -> list[float]:
    """Seconds from the frame before, for every frame or one value for all; empty where nothing is known."""
    vector = _numbers(header, "FrameTimeVector")
    candidates = [
        [value / 1000 for value in _numbers(header, "FrameTime")],
        # The first entry belongs to no step: some files say 0 there, some do not.
        [0.0, *(value / 1000 for value in vector[1:])] if len(vector) == _num_frames(header) else [],
        [1 / rate for rate in _numbers(header, "CineRate") if rate],
        [1 / rate for rate in _numbers(header, "RecommendedDisplayFrameRate") if rate],
    ]
    return next((steps for steps in candidates if steps and min(steps[1:] or steps) > 0), [])


def _sample_aspect_ratio(header: Dataset) -> float:
    ratio = _numbers(header, "PixelAspectRatio")
    # DICOM states height before width.
    return ratio[1] / ratio[0] if len(ratio) == 2 and min(ratio) > 0 else 1.0


def _num_frames(header: Dataset) -> int:
    return max(1, int(header.get("NumberOfFrames") or 1))


def _numbers(header: Dataset, keyword: str) -> list[float]:
    """The finite values of an element; empty where it is absent, empty or no number."""
    try:
        value = header.get(keyword)
        values = [float(item) for item in ([value] if isinstance(value, int | float | str) else value or [])]
    except (TypeError, ValueError):
        return []
    return values if all(map(math.isfinite, values)) else []
