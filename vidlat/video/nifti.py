"""Single-file NIfTI-1 and NIfTI-2, plain or gzipped: headers by nibabel, voxels plane by plane.

A frame is a plane of the file's first two axes, never resampled. It is oriented in radiological convention,
along the closest patient axes: front or head at the top, the patient's right (the front, in a sagittal plane)
on the left. Slices are ordered feet to head, back to front, left to right.
"""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError

from vidlat.errors import DecodeError
from vidlat.types import Frame, Video, VideoHeader, Warn
from vidlat.video.pixels import Pixels, aspect_ratio, finite_pixels, to_luma, to_pixel_type
from vidlat.video.untrusted import check_end, check_frame_size, check_inflated_size, decode_errors, inflated

_HEADER_BYTES = 540  # of NIfTI-2, the longer one
_SINGLE, _PAIR = (b"n+1\0", b"n+2\0\r\n\x1a\n"), (b"ni1\0", b"ni2\0\r\n\x1a\n")
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_CHANNELS = (3, 4)  # as many voxels of a fifth axis may be RGB or RGBA
_WHAT = "cannot be decoded as NIfTI"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Volume:
    """The parts of a header that frames need.

    sides: voxels along x, y, z and t. channels: bytes per colour voxel, 0 for gray. scaling: slope and
    intercept. directions: of x, y and z, such as "RAS". spacing: of x and y. step_seconds: between two times.
    """

    path: Path
    is_gzip: bool
    sides: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    channels: int
    offset: int
    scaling: tuple[float, float] | None
    directions: str
    spacing: tuple[float, float]
    step_seconds: float | None

    @property
    def plane_bytes(self) -> int:
        return self.sides[0] * self.sides[1] * max(1, self.channels) * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.plane_bytes * self.sides[2] * self.sides[3]

    @property
    def is_transposed(self) -> bool:
        """Whether x is the vertical axis: the one along head and feet, else along front and back."""
        x, y = ("LRPAIS".index(direction) // 2 for direction in self.directions[:2])
        return x > y


def is_nifti(head: bytes) -> bool:
    """Whether a file is NIfTI, gzipped or not; head: its first bytes, 1024 suffice."""
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _HEADER_BYTES)
        except zlib.error:
            return False
    return head[344:348] in (_SINGLE[0], _PAIR[0]) or head[4:12] in (_SINGLE[1], _PAIR[1])


def nifti_videos(path: Path, file: IO[bytes]) -> list[str]:
    """Names of the videos in a file of several slices and several times, one per slice; empty otherwise.

    `z0` is the first slice as stored. Raises DecodeError, OSError.
    """
    return _parts(_read_volume(path, file, warn=lambda _: None))


def open_nifti(path: Path, file: IO[bytes], warn: Warn, part: str | None = None) -> Video:
    """Open a NIfTI file. The frames are its times; its slices where it has one time.

    part: the video to open, where `nifti_videos` names several. Scaled values become float32, RGB becomes
    luma. Unscaled uint8 has the range of its type. Times follow from the fourth spacing where its unit is a
    unit of time; slices have no times. Raises DecodeError, OSError.
    """
    volume = _read_volume(path, file, warn)
    indices = _plane_indices(volume, part)
    step_seconds = volume.step_seconds if volume.sides[3] > 1 else None
    aspect = aspect_ratio(*(volume.spacing[::-1] if volume.is_transposed else volume.spacing)) or 1.0

    def frames() -> Iterator[Frame]:
        with decode_errors(_WHAT):
            for index, pixels in enumerate(finite_pixels(lambda: _read_planes(volume, indices, warn), warn)):
                seconds = None if step_seconds is None else index * step_seconds
                yield Frame(pixels=pixels, pts_seconds=seconds, sample_aspect_ratio=aspect)

    is_8_bit = volume.dtype == np.uint8 and volume.scaling is None
    seconds = None if step_seconds is None else len(indices) * step_seconds
    return Video(
        frames=frames,
        auto_range=lambda: (0.0, 255.0) if is_8_bit else None,
        header=lambda: VideoHeader(num_frames=len(indices), seconds=seconds),
    )


def _read_volume(path: Path, file: IO[bytes], warn: Warn) -> _Volume:
    is_gzip = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    with decode_errors(_WHAT), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid numbers, which are checked below
        header = _parse((gzip.GzipFile(fileobj=file) if is_gzip else file).read(_HEADER_BYTES))
        dtype, channels = _number_type(header)
        slope, intercept = header.get_slope_inter()
        is_scaled = not channels and slope is not None and (slope, intercept) != (1, 0)
        zooms = [float(zoom) for zoom in header["pixdim"][1:6]]
        # A fifth axis has no unit of its own, and 1 is what is written where nothing is known.
        step = zooms[3] if _time_axis(header) == 3 else zooms[4] if zooms[4] != 1 else math.nan
        seconds = step * _SECONDS.get(header.get_xyzt_units()[1], math.nan)
        volume = _Volume(
            path=path,
            is_gzip=is_gzip,
            sides=_sides(header),
            dtype=dtype,
            channels=channels,
            offset=int(header.get_data_offset()),
            scaling=(float(slope), float(intercept)) if is_scaled else None,
            directions=_directions(header, warn),
            spacing=(zooms[0], zooms[1]),
            step_seconds=seconds if math.isfinite(seconds) and seconds > 0 else None,
        )
    _check_size(volume)
    return volume


def _parse(head: bytes) -> Nifti1Header:
    kind = Nifti1Header if head[344:348] in (_SINGLE[0], _PAIR[0]) else Nifti2Header
    if head[344:348] == _PAIR[0] or head[4:12] == _PAIR[1]:
        # The voxels lie in a second file, whose changes would go unnoticed.
        raise DecodeError(
            "header of a NIfTI pair (.hdr and .img); expected a single file: save both as one .nii",
            "unsupported",
        )
    return kind(head[: kind.template_dtype.itemsize], check=False)


def _number_type(header: Nifti1Header) -> tuple[np.dtype[Any], int]:
    """The dtype of a voxel or channel, in the file's byte order, and the number of channels, 0 for gray."""
    dtype = header.get_data_dtype()
    if dtype.names is not None and set(dtype.names) <= set("RGBA"):
        return np.dtype(np.uint8), len(dtype.names)
    if dtype.kind not in "iuf":
        kind = "complex numbers" if dtype.kind == "c" else "voxels that are not numbers"
        raise DecodeError(f"{kind}; expected integers, floats or RGB: save the magnitude", "unsupported")
    return dtype, 0


def _sides(header: Nifti1Header) -> tuple[int, int, int, int]:
    shape = [int(side) for side in header.get_data_shape()]
    sides = [*shape, 1, 1, 1, 1]
    time = _time_axis(header)
    if len(shape) < 2 or min(sides) < 1 or max(sides[time + 1 :]) > 1:
        found = "x".join(map(str, shape)) or "no"
        raise DecodeError(
            f"axes of {found} voxels; expected x, y, slices, times, or x, y, slices, 1, times", "wrong-axes"
        )
    return sides[0], sides[1], sides[2], sides[time]


def _time_axis(header: Nifti1Header) -> int:
    """3, or 4 where the fourth axis is empty and the fifth cannot be vectors or colours."""
    shape = header.get_data_shape()
    holds_times = len(shape) > 4 and shape[3] == 1 and shape[4] not in _CHANNELS
    return 4 if holds_times and header["intent_code"] == 0 else 3


def _directions(header: Nifti1Header, warn: Warn) -> str:
    is_stated = header["sform_code"] > 0 or header["qform_code"] > 0
    try:
        codes = aff2axcodes(header.get_best_affine()) if is_stated else ()
    except (ArithmeticError, ValueError, HeaderDataError):  # not a rotation
        codes = ()
    directions = "".join(code for code in codes if code)
    if len(directions) < 3:
        warn("declares no orientation: assumed right to left, back to front, feet to head (LAS)")
        return "LAS"
    return directions


def _check_size(volume: _Volume) -> None:
    check_frame_size(volume.sides[0], volume.sides[1])
    if volume.offset < 0:
        reason = f"its header puts the voxels at byte {volume.offset}: the file is damaged"
        raise DecodeError(reason, "unreadable")
    if volume.is_gzip:
        check_inflated_size(volume.end)
        return
    num_bytes = volume.path.stat().st_size
    if num_bytes < volume.end:
        raise DecodeError(f"truncated: {num_bytes} of {volume.end} bytes; copy the file again", "truncated")


def _parts(volume: _Volume) -> list[str]:
    num_slices, num_times = volume.sides[2:]
    if num_slices == 1 or num_times == 1:
        return []
    width = len(str(num_slices - 1))
    return [f"z{index:0{width}}" for index in range(num_slices)]


def _plane_indices(volume: _Volume, part: str | None) -> range:
    """Indices of the frames among the planes of the file."""
    num_slices, num_times = volume.sides[2:]
    parts = _parts(volume)
    if part is not None:
        if part not in parts:
            there = f"{parts[0]} to {parts[-1]}" if parts else "a single video"
            raise DecodeError(f"no video {part!r} in the file; it holds {there}", "no-part")
        return range(parts.index(part), num_slices * num_times, num_slices)
    if parts:
        reason = f"{num_slices} slices at {num_times} times are one video per slice"
        raise DecodeError(f"{reason}: name one, {parts[0]} to {parts[-1]}", "ambiguous-axes")
    indices = range(num_slices * num_times)
    return indices[::-1] if num_slices > 1 and volume.directions[2] in "LPI" else indices


def _read_planes(volume: _Volume, indices: range, warn: Warn) -> Iterator[Pixels]:
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(volume.path.open("rb"))
        is_stream = volume.is_gzip
        if is_stream:
            file = cast(IO[bytes], stack.enter_context(gzip.open(file)))
        if is_stream and indices.step < 0:
            # Seeking backwards in a gzip stream inflates it again from the start.
            file, is_stream = stack.enter_context(inflated(file, volume.end, warn)), False
        for num_read, index in enumerate(indices):
            file.seek(volume.offset + index * volume.plane_bytes)
            plane = file.read(volume.plane_bytes)
            if len(plane) < volume.plane_bytes:
                raise DecodeError(f"truncated after {num_read} of {len(indices)} frames", "truncated")
            yield _to_pixels(plane, volume)
        if is_stream:
            file.seek(volume.end)
            check_end(file, warn)


def _to_pixels(data: bytes, volume: _Volume) -> Pixels:
    """Copy a plane to a frame in display orientation."""
    num_columns, num_rows = volume.sides[:2]
    values: npt.NDArray[Any] = np.frombuffer(data, volume.dtype)
    if volume.channels:
        plane = to_luma(values.reshape(num_rows, num_columns, volume.channels))
    else:
        plane = values.reshape(num_rows, num_columns)
    if volume.scaling is not None:
        slope, intercept = volume.scaling
        with np.errstate(over="ignore", invalid="ignore"):
            plane = plane.astype(np.float64) * slope + intercept
    # A frame runs towards the patient's left, back and feet: axes in other directions are reversed.
    x_step, y_step = (-1 if direction in "RAS" else 1 for direction in volume.directions[:2])
    plane = plane[::y_step, ::x_step]
    return to_pixel_type(plane.T if volume.is_transposed else plane)
