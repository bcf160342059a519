"""One-frame and multi-frame DICOM through pydicom, frame by frame. Only pixels, timing and size are kept.

Gray of more than 8 bits fills [0, 1] from its VOI window, else from its 0th to 99.5th percentile over the
file; CT from HOUNSFIELD_RANGE. One range serves all frames of a file, so that brightness does not flicker.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, get_decoder, iter_pixels
from pydicom.uid import UID, JPEG2000TransferSyntaxes

from vidlat.errors import DecodeError
from vidlat.types import Frame, VideoHeader
from vidlat.video.container import MAX_FRAME_PIXELS

HOUNSFIELD_RANGE = (-1000.0, 1000.0)
"""CT values are cut to this range, the one MAISI was trained on."""
TOP_PERCENTILE = 99.5
"""What is brighter is white where no window is stated: MAISI scales MR from the 0th percentile to this."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_PALETTES = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
# No other element is parsed or kept: none of a patient. The functional groups (geometry, timing, windows)
# come whole. A deflated file has to be inflated whole before its elements can be skipped.
_TAGS = [
    *("Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "PixelAspectRatio"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"),
    *(f"{palette}Descriptor" for palette in _PALETTES),
    *(f"{palette}Data" for palette in _PALETTES),
    *(f"Segmented{palette}Data" for palette in _PALETTES),
]
_DEFLATED_TAGS = [*_TAGS, "PlanarConfiguration", "PixelData"]
_MAX_LEVELS = 65_536  # of a histogram: every value that 16 bits can hold
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # the tag (7FE0,0010) in either byte order


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with these bytes (132 are enough) is a DICOM file."""
    return head[128:132] == b"DICM"


def read_dicom(path: Path, num_range_frames: int | None = None) -> Iterator[Frame]:
    """Yield every frame as gray: MONOCHROME1 inverted, colour as BT.601 luma.

    Eight stored bits come as uint8, anything else as float32 in [0, 1]. More than 8 bits of gray are
    rescaled, then cut to HOUNSFIELD_RANGE for CT, else to the window of the first frame (to the union of all
    windows where every frame states its own), else to the percentiles of the file; what is not CT is decoded
    twice for it. Colour and fewer bits keep the whole range of the stored bits. The time comes from
    FrameTime, FrameTimeVector, CineRate or RecommendedDisplayFrameRate, the first that makes sense.
    num_range_frames: take the percentiles from that many frames, for whoever will read no more of them.
    Raises DecodeError.
    """
    frames = _read(path, num_range_frames)
    while (frame := _next(frames)) is not None:
        yield frame


def probe_dicom(path: Path) -> VideoHeader:
    """What the header says; no pixel is decoded. Raises DecodeError where it cannot be read."""
    with _one_kind_of_error():
        header = _read_header(path)
        num_frames, steps = _num_frames(header), _frame_steps(header)
        # The first entry of a vector is the time before the first frame.
        seconds = sum(steps) if len(steps) > 1 else num_frames * steps[0] if steps else None
        return VideoHeader(num_frames=num_frames, seconds=seconds)


def _next(frames: Iterator[Frame]) -> Frame | None:
    with _one_kind_of_error():
        return next(frames, None)


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    with warnings.catch_warnings():
        # pydicom warns of every oddity it copes with; what it does not cope with raises.
        warnings.simplefilter("ignore")
        try:
            yield
        except DecodeError:
            raise
        except InvalidDicomError as error:
            raise DecodeError("is not a DICOM file", "not-dicom") from error
        # pydicom lets through whatever the bytes provoke, from KeyError to struct.error.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DecodeError(f"cannot be decoded as DICOM: {reason}", "unreadable") from error


def _read(path: Path, num_range_frames: int | None) -> Iterator[Frame]:
    header = _read_header(path)
    num_frames = _num_frames(header)
    aspect = _sample_aspect_ratio(header)
    limits = _limits(path, header, num_range_frames)
    num_decoded = 0
    for pixels, seconds in zip(_iter_pixels(path, header), _frame_times(header), strict=False):
        gray = _to_gray(pixels, header, num_decoded, limits)
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
    source = dcmread(path, specific_tags=list(_DEFLATED_TAGS)) if syntax.is_deflated else path
    try:
        yield from iter_pixels(source, indices=indices)
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


def _to_gray(
    pixels: npt.NDArray[Any], header: Dataset, index: int, limits: tuple[float, float] | None
) -> npt.NDArray[Any]:
    """One frame as gray; `limits` are the rescaled values that become 0 and 1, None for all stored bits."""
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    if limits is not None:
        unit = _to_unit(_rescaled(pixels, header, index), *limits)
        return 1 - unit if inverted else unit
    bits, signed = int(header.BitsStored), bool(header.get("PixelRepresentation"))
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
        bits, signed = 8 * pixels.dtype.itemsize, False
    # pydicom has made RGB of every YBR by now.
    values = pixels.astype(np.float32)
    if values.ndim == 3:
        values = values[..., :3] @ _LUMA
    if bits == 8 and not signed:
        gray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return 255 - gray if inverted else gray
    low = -(2.0 ** (bits - 1)) if signed else 0.0
    unit = _to_unit(values, low, low + 2.0**bits - 1)
    return 1 - unit if inverted else unit


def _to_unit(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float32]:
    if high <= low:
        return np.zeros(values.shape, np.float32)
    # In the type of the values: float32 would lose the last bits of a dose of 32.
    number = values.dtype.type
    unit: npt.NDArray[Any] = np.clip((values - number(low)) / number(high - low), 0, 1)
    return unit.astype(np.float32)


def _limits(path: Path, header: Dataset, num_range_frames: int | None) -> tuple[float, float] | None:
    """The rescaled values that become 0 and 1 in all frames; None for colour and for at most 8 bits."""
    if header.BitsStored <= 8 or not header.PhotometricInterpretation.startswith("MONOCHROME"):
        return None
    if header.get("Modality") == "CT":
        return HOUNSFIELD_RANGE
    values, counts = _histogram(path, header, num_range_frames)
    window = _window(header, values[0], values[-1])
    if window is not None:
        return window
    high = _percentile(values, counts, TOP_PERCENTILE)
    # Where nearly all is background, the percentile is background too.
    return float(values[0]), high if high > values[0] else float(values[-1])


def _histogram(
    path: Path, header: Dataset, num_frames: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The rescaled values of the first frames (None: of all), ascending, and how often each occurs.

    Exact up to _MAX_LEVELS distinct values, as of 16 bits in one scale; beyond, values are rounded down to
    multiples of a power of two.
    """
    values, counts, step = np.empty(0), np.empty(0, np.int64), 0.0
    for index, pixels in enumerate(islice(_iter_pixels(path, header), num_frames)):
        stored, num_stored = np.unique(pixels, return_counts=True)
        merged = np.concatenate([values, _rescaled(stored, header, index)])
        values, counts = _merge(merged, np.concatenate([counts, num_stored]), step)
        while len(values) > _MAX_LEVELS:
            step = 2 * step or 2.0 ** math.floor(math.log2((values[-1] - values[0]) / _MAX_LEVELS))
            values, counts = _merge(values, counts, step)
    if not len(values):
        raise DecodeError("holds no frame that decodes", "no-frames")
    return values, counts


def _merge(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], step: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    distinct, places = np.unique(np.floor(values / step) * step if step else values, return_inverse=True)
    return distinct, np.bincount(places, weights=counts).astype(np.int64)


def _percentile(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], percent: float) -> float:
    """The percentile of a histogram, linear between neighbouring pixels as in numpy.percentile."""
    ends = counts.cumsum()
    rank = (ends[-1] - 1) * percent / 100
    below, above = values[np.searchsorted(ends, [math.floor(rank), math.ceil(rank)], side="right")]
    return float(below + (above - below) * (rank % 1))


def _window(header: Dataset, lowest: float, highest: float) -> tuple[float, float] | None:
    """The first window that overlaps the values: the frames' own, the shared one, the file's; else None."""
    frames = header.get("PerFrameFunctionalGroupsSequence", [])
    own = [next(iter(_group_windows(frame)), None) for frame in frames]
    stated = [window for window in own if window is not None]
    if own and len(stated) == len(own):
        first = [(min(low for low, _ in stated), max(high for _, high in stated))]
    else:
        first = [window for window in own[:1] if window is not None]
    groups = header.get("SharedFunctionalGroupsSequence", [])
    shared = [window for group in groups for window in _group_windows(group)]
    candidates = [*first, *shared, *_windows(header)]
    return next(((low, high) for low, high in candidates if low < highest and high > lowest), None)


def _group_windows(group: Dataset) -> list[tuple[float, float]]:
    return [window for item in group.get("FrameVOILUTSequence", []) for window in _windows(item)]


def _windows(dataset: Dataset) -> list[tuple[float, float]]:
    """What becomes black and white by each usable window: LINEAR and LINEAR_EXACT of DICOM PS3.3 C.11.2.1."""
    function = dataset.get("VOILUTFunction") or "LINEAR"
    pairs = zip(_numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth"), strict=False)
    if function == "LINEAR":
        # A width of 1 is a threshold, which leaves no gray.
        return [(center - width / 2, center + width / 2 - 1) for center, width in pairs if width > 1]
    if function == "LINEAR_EXACT":
        return [(center - width / 2, center + width / 2) for center, width in pairs if width > 0]
    return []  # SIGMOID has no black and white


def _rescaled(pixels: npt.NDArray[Any], header: Dataset, index: int) -> npt.NDArray[Any]:
    """Stored values of a frame in units of its modality: 16 bits of CT fit float32, others need not."""
    number: Any = np.float32 if header.get("Modality") == "CT" else np.float64
    slope, intercept = _rescale(header, index)
    rescaled: npt.NDArray[Any] = pixels.astype(number) * number(slope) + number(intercept)
    return rescaled


def _rescale(header: Dataset, index: int) -> tuple[float, float]:
    """Slope and intercept of a frame: its own, else those of all frames, else the file's, else none."""
    groups = (
        *header.get("PerFrameFunctionalGroupsSequence", [])[index : index + 1],
        *header.get("SharedFunctionalGroupsSequence", []),
    )
    stated = [item for group in groups for item in group.get("PixelValueTransformationSequence", [])]
    for dataset in (*stated, header):
        slope, intercept = _numbers(dataset, "RescaleSlope"), _numbers(dataset, "RescaleIntercept")
        if slope and intercept:
            return slope[0], intercept[0]
    return 1.0, 0.0


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
