"""Gray frames to H.264 in MP4, which every player shows, to GIF, or one to PNG or JPEG."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from vidlat.errors import InputError, ShapeError
from vidlat.files import temporary_name

DEFAULT_FPS = 25
"""Frame rate of a video whose source states none."""

QUANTIZER = 10
"""x264's, of 0 to 51: held constant it bounds the error of every pixel."""


def write_video(
    path: Path,
    frames: Iterable[npt.NDArray[np.uint8]],
    fps: float | Fraction,
    quantizer: int = QUANTIZER,
    comment: str = "",
) -> int:
    """Write gray frames, each (H, W) uint8, and return how many there were.

    comment: goes into the file's metadata.
    Limited-range yuv420p, tagged so: decoded to gray, every pixel comes back within 8 levels of 255, 1 on
    the mean; further off with a coarser quantizer, in a smaller file. An odd side grows by one pixel that
    repeats the edge. The rate is constant; 0, nan and inf become DEFAULT_FPS. The file appears whole or not
    at all. Raises ShapeError for no frame, and for one that is not (H, W) uint8 like the first; InputError
    where the file cannot be written.
    """
    with appearing_whole(path) as draft:
        return _write(draft, frames, _rate(fps), quantizer, comment)


def write_gif(path: Path, frames: npt.NDArray[np.uint8], fps: float, comment: str = "") -> None:
    """Write gray frames (T, H, W) as a GIF that repeats for ever, every gray level as it is.

    comment: is kept in it. A GIF counts hundredths of a second, and players take no fewer than 2 of them. The
    file appears whole or not at all. Raises InputError where it cannot be written.
    """
    milliseconds = max(round(100 / _rate(fps)), 2) * 10
    first, *others = (Image.fromarray(frame) for frame in frames)
    with appearing_whole(path) as draft:
        first.save(
            draft, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0,
            comment=comment.encode(),
        )  # fmt: skip


def write_png(path: Path, frame: npt.NDArray[np.uint8]) -> None:
    """Write a gray frame (H, W) as PNG, whole or not at all; raises InputError where it cannot be written."""
    with appearing_whole(path) as draft:
        Image.fromarray(frame).save(draft, format="PNG")


def jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    """A gray frame (H, W) as the content of a JPEG file."""
    content = BytesIO()
    Image.fromarray(frame).save(content, format="JPEG", quality=85)
    return content.getvalue()


def write_array(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    """Write frames (T, H, W) as `.npy`, whole or not at all; raises InputError where it cannot be written."""
    with appearing_whole(path) as draft, draft.open("wb") as file:
        np.save(file, frames)


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Another name to write under, which becomes `path` at the end; raises InputError."""
    draft = path.with_name(temporary_name())
    try:
        try:
            yield draft
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except (OSError, av.FFmpegError) as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def prepare_folder(folder: Path, flag: str = "--out") -> None:
    """Make a folder for results and try to write in it, before the work that would be lost.

    Raises InputError, which advises another `flag`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another {flag}") from error


def prepare_file(path: Path, flag: str = "--out") -> None:
    """As `prepare_folder`, for the folder of one file; also refuses a path that no file can have."""
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name too long
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another {flag}") from error
    if is_folder:
        raise InputError(f"{path}: is a folder; give another {flag}")
    prepare_folder(path.parent, flag)


def _write(
    draft: Path, frames: Iterable[npt.NDArray[np.uint8]], rate: Fraction, quantizer: int, comment: str
) -> int:
    first_shape: tuple[int, ...] | None = None
    num_frames = 0
    with av.open(str(draft), "w", format="mp4", options={"movflags": "faststart"}) as container:
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=rate)
        stream.pix_fmt = "yuv420p"
        # Without B-frames the file needs no edit list, which some readers take for hidden frames.
        stream.options = {"qp": str(quantizer), "bf": "0"}
        # x264's result depends on the number of threads: one gives the same file everywhere.
        stream.codec_context.thread_count = 1
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.colorspace = Colorspace.ITU601
        for pixels in frames:
            if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.shape != (first_shape or pixels.shape):
                got = f"{pixels.dtype} {pixels.shape}"
                raise ShapeError(f"frame {num_frames}: got {got}, expected uint8 {first_shape or '(H, W)'}")
            if first_shape is None:
                first_shape = pixels.shape
                stream.height, stream.width = (side + side % 2 for side in pixels.shape)
            frame = _to_yuv(pixels)
            frame.pts, frame.time_base = num_frames, 1 / rate
            container.mux(stream.encode(frame))
            num_frames += 1
        if not num_frames:
            raise ShapeError("a video needs at least one frame: got none")
        container.mux(stream.encode())
    return num_frames


def _to_yuv(pixels: npt.NDArray[np.uint8]) -> av.VideoFrame:
    height, width = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    gray = av.VideoFrame.from_ndarray(even, format="gray")
    frame = gray.reformat(
        format="yuv420p", src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.MPEG,
        src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU601,
    )  # fmt: skip
    frame.color_range = ColorRange.MPEG
    return frame


def _rate(fps: float | Fraction) -> Fraction:
    """29.97002997 becomes 30000/1001 again."""
    rate = Fraction(fps).limit_denominator(1001) if math.isfinite(fps) else Fraction(0)
    return rate if rate > 0 else Fraction(DEFAULT_FPS)
