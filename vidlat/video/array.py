"""NumPy files, .npy and .npz, frame by frame. Nothing is ever unpickled.

Axes are told, or (T, H, W), (H, W) for one frame, (T, 1, H, W), or (T, H, W, C) with C 1, 3 or 4. RGB
becomes luma, alpha is ignored. NumPy files have no times.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy

from vidlat.errors import DecodeError
from vidlat.types import Frame, Range, Video, VideoHeader, Warn
from vidlat.video.pixels import Pixels, ReadPixels, finite_pixels, lie_in_unit_range, to_luma, to_pixel_type
from vidlat.video.untrusted import check_frame_size, check_inflated_size, decode_errors, inflated

_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_PREFERRED = ("video", "frames", "arr_0")
_CHANNELS = (1, 3, 4)
_AXES = (
    "expected (T,H,W), (H,W), (T,1,H,W) or (T,H,W,C) with C 1, 3 or 4, and H and W of other lengths; "
    "another order is told by --axes"
)
_NOT_NUMBERS = {
    "O": "Python objects, which can run code and are never loaded",
    **{"c": "complex numbers", "V": "records", "U": "text", "S": "text", "M": "dates", "m": "durations"},
}
"""What an array of each other kind of dtype holds."""
_MAX_HEADER_BYTES = 1 << 14
_SMALLEST_FRAME = 32
"""Pixels of a side, below which an axis is rather the time of a short clip."""
_WHAT = "cannot be read as NumPy array"


Load = Callable[[], Pixels]
"""Memory-maps the array: only what is accessed is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """An NPY header. order: of the axes, C or F(ortran). offset: of the first number."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    offset: int

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def is_array(head: bytes) -> bool:
    """Whether a file is .npy, or a zip whose first member is; head: its first bytes, 512 suffice."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return head.startswith(_NPY) or (head.startswith(_ZIP) and name.endswith(b".npy"))


def open_array(path: Path, file: IO[bytes], warn: Warn, axes: str = "auto") -> Video:
    """Open an .npy file, or of an .npz file its only array or the one named video, frames or arr_0.

    axes: their letters in order, of T, H, W and C; auto: by the shape.

    The range is (0, 255) for uint8, (0, 1) for bool and for floats that all lie in [0, 1], which takes a pass
    over them, and None otherwise. An .npz member is inflated once, to a temporary file.
    Raises DecodeError, OSError.
    """
    is_zip = file.read(4) == _ZIP
    file.seek(0)
    with decode_errors(_WHAT):
        header, load = (_open_npz if is_zip else _open_npy)(path, file, warn)
        axes = _assumed_axes(header, warn) if axes == "auto" else axes
        num_frames = _num_frames(header.shape, axes)

        def read() -> Iterator[Pixels]:
            for frame in _frames(load(), axes):
                yield to_pixel_type(to_luma(frame) if frame.ndim == 3 else frame)

    def frames() -> Iterator[Frame]:
        with decode_errors(_WHAT):
            for pixels in finite_pixels(read, warn):
                yield Frame(pixels=pixels, pts_seconds=None)

    return Video(
        frames=frames,
        auto_range=lambda: _auto_range(header.dtype, read),
        header=lambda: VideoHeader(num_frames=num_frames, seconds=None),
    )


def _open_npy(path: Path, file: IO[bytes], warn: Warn) -> tuple[_Header, Load]:
    header = _read_header(file)
    num_bytes = path.stat().st_size
    if num_bytes < header.end:
        raise DecodeError(f"truncated: {num_bytes} of {header.end} bytes; copy the file again", "truncated")
    if num_bytes > header.end:
        warn("holds more data than its header declares: the rest is ignored")
    return header, lambda: _map(path, header)


def _open_npz(path: Path, file: IO[bytes], warn: Warn) -> tuple[_Header, Load]:
    archive = zipfile.ZipFile(file)
    member = _choose(archive, warn)
    with archive.open(member) as start:
        header = _read_header(start)
    if member.file_size != header.end:
        reason = f"the array declares {header.end} bytes, the archive {member.file_size}: it is damaged"
        raise DecodeError(f"{_WHAT}: {reason}", "truncated")
    check_inflated_size(header.end)

    @cache
    def load() -> Pixels:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(member) as file,
            inflated(file, header.end, warn) as scratch,
        ):
            return _map(scratch, header)  # the mapping outlives the closed file

    return header, load


def _choose(archive: zipfile.ZipFile, warn: Warn) -> zipfile.ZipInfo:
    members = {
        member.filename.removesuffix(".npy"): member
        for member in archive.infolist()
        if member.filename.endswith(".npy")
    }
    candidates = members if len(members) == 1 else [name for name in _PREFERRED if name in members]
    name = next(iter(candidates), None)
    if name is None:
        found = f"{len(members)} arrays ({', '.join(map(repr, [*members][:5]))})"
        raise DecodeError(f"{found}; expected one, or one named {' or '.join(_PREFERRED)}", "no-video")
    if len(members) > 1:
        warn(f"only its array {name} is read, not the {len(members) - 1} others")
    member = members[name]
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DecodeError(
            "compressed by a method that NumPy does not use: save it with numpy.savez_compressed",
            "unsupported",
        )
    return member


def _read_header(file: IO[bytes]) -> _Header:
    # A header may declare a length of 4 GiB: read no more than NumPy accepts.
    start = io.BytesIO(file.read(_MAX_HEADER_BYTES))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers written by Python 2
            version = npy.read_magic(start)
            # Version 3.0 differs from 2.0 only in the names of fields, which are refused.
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read(start)
    except Exception as error:  # the header is a Python literal, which fails in many ways
        raise DecodeError("its NPY header cannot be read: the file is damaged", "unreadable") from error
    if dtype.kind not in "biuf":
        content = _NOT_NUMBERS["O" if dtype.hasobject else dtype.kind]
        raise DecodeError(f"holds {content}: expected integers, floats or bool", "unsupported")
    if not shape or min(shape) < 1:
        raise DecodeError(f"shape {shape} holds no frame: {_AXES}", "no-frames")
    return _Header(shape=shape, order="F" if is_fortran else "C", dtype=dtype, offset=start.tell())


def _assumed_axes(header: _Header, warn: Warn) -> str:
    """The axes of an array by its shape; with a warning where MATLAB's order is as likely."""
    match header.shape:
        case (_, _):
            return "HW"
        case (_, _, width) if width not in _CHANNELS:
            axes, other = "THW", "HWT"
        case (_, height, _, channels) if channels in _CHANNELS and height != 1:
            axes, other = "THWC", "HWTC"
        case (_, 1, _, width) if width not in _CHANNELS:
            return "TCHW"
        case _:
            raise DecodeError(f"shape {header.shape}: {_AXES}", "wrong-axes")
    first, second, third = header.shape[:3]
    # Frames are rather square and not tiny, and NumPy has time outermost in memory, as MATLAB has with HWT.
    is_squarer = second != third and _elongation(first, second) <= _elongation(second, third)
    if (is_squarer and min(first, second) >= _SMALLEST_FRAME) or header.order == "F":
        warn(f"shape {header.shape} is read as {axes}: if it is {other}, MATLAB's order, give --axes {other}")
    return axes


def _elongation(height: int, width: int) -> float:
    return max(height, width) / min(height, width)


def _num_frames(shape: tuple[int, ...], axes: str) -> int:
    """The number of frames; raises DecodeError for other axes than the array has, and for giant frames."""
    if len(shape) != len(axes):
        reason = f"shape {shape} has {len(shape)} axes; expected {len(axes)}, by --axes {axes}"
        raise DecodeError(reason, "wrong-axes")
    sides = dict(zip(axes, shape, strict=True))
    if sides.get("C", 1) not in _CHANNELS:
        reason = f"shape {shape} has {sides['C']} channels by --axes {axes}; expected 1, 3 or 4"
        raise DecodeError(reason, "wrong-axes")
    check_frame_size(sides["W"], sides["H"])
    return sides.get("T", 1)


def _frames(array: Pixels, axes: str) -> Pixels:
    """The array as (T, H, W) or (T, H, W, C), with C 3 or 4."""
    ordered = array.transpose([axes.index(axis) for axis in "THWC" if axis in axes])
    frames = ordered if "T" in axes else ordered[None]
    return frames[..., 0] if "C" in axes and frames.shape[-1] == 1 else frames


def _auto_range(dtype: np.dtype[Any], read: ReadPixels) -> Range | None:
    if dtype == np.uint8:
        return (0.0, 255.0)
    with decode_errors(_WHAT):
        is_unit = dtype == np.bool or (dtype.kind == "f" and lie_in_unit_range(read))
    return (0.0, 1.0) if is_unit else None


def _map(file: Any, header: _Header) -> Pixels:
    mapped = np.memmap(file, header.dtype, "r", header.offset, header.shape, header.order)
    return np.asarray(mapped)  # frames of the plain class are created faster
