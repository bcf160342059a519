"""PNG, JPEG and TIFF images through Pillow: a numbered sequence of files, or the pages of one TIFF file.

EXIF rotation is applied. Colour and palettes become luma, alpha is ignored. Images have no times.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from vidlat.errors import DecodeError
from vidlat.types import Frame, Range, Video, VideoHeader, Warn
from vidlat.video.pixels import Pixels, finite_pixels, lie_in_unit_range, to_luma, to_pixel_type
from vidlat.video.untrusted import check_frame_size, decode_errors

_FORMATS = ("PNG", "JPEG", "TIFF")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a TIFF tag and a value of it


def is_image(head: bytes) -> bool:
    """Whether a file is a PNG, JPEG or TIFF image; head: its first bytes, 8 suffice."""
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", *_TIFF))


def is_named_like_picture(path: Path) -> bool:
    """Whether a file has the suffix of a supported image format."""
    return path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def has_pages(path: Path, file: IO[bytes]) -> bool:
    """Whether an image is a TIFF of several pages, a video of its own. Raises DecodeError if damaged."""
    is_tiff = file.read(4) in _TIFF
    return is_tiff and _has_more_pages(_image(path, file))


def image_sequences(files: Sequence[Path]) -> list[list[Path]]:
    """Group images into videos, their frames in order. Single images are in no group.

    The files of a group lie in one folder and their names differ in one number. Where several numbers vary
    among the files, the last of them counts frames: `p1_f01.png` and `p2_f01.png` belong to two videos.
    """
    alike = defaultdict(list)
    for path in files:
        words = _words(path.name)
        alike[path.parent, tuple(words[::2])].append((words[1::2], path))
    groups = defaultdict(list)
    for key, members in alike.items():
        columns = list(zip(*(numbers for numbers, _ in members), strict=True))
        counting = max((place for place, column in enumerate(columns) if len(set(column)) > 1), default=None)
        if counting is None:
            continue
        for numbers, path in members:
            groups[key, tuple(numbers[:counting]), tuple(numbers[counting + 1 :])].append(path)
    return [_in_order(group) for group in groups.values() if len(group) > 1]


def open_images(files: Sequence[Path], warn: Warn) -> Video:
    """Open images of one size and dtype as a video; `frame2` comes before `frame10`.

    The range is (0, 255) for 8 bits, (0, 1) for floats that all lie in [0, 1], None otherwise.
    Raises DecodeError with the file's name.
    """
    in_order = _in_order(files)

    def read() -> Iterator[tuple[str, Pixels]]:
        for path in in_order:
            with _opened(path) as image:
                if _has_more_pages(image):
                    reason = f"{path.name!r} has several pages; expected one image per file of a sequence"
                    raise DecodeError(reason, "several-pages")
                yield repr(path.name), _to_gray(image, path)

    with _opened(in_order[0]) as first:
        return _to_video(first, read, len(in_order), warn)


def open_tiff(path: Path, file: IO[bytes], warn: Warn) -> Video:
    """Open the pages of a TIFF file as a video; see `open_images`. Raises DecodeError."""

    def read() -> Iterator[tuple[str, Pixels]]:
        with _opened(path) as image:
            for page in count():
                with _decoding(path):
                    try:
                        image.seek(page)
                    except EOFError:  # Pillow's sign of the last page
                        return
                    check_frame_size(*image.size)
                yield f"page {page + 1}", _to_gray(image, path)

    return _to_video(_image(path, file), read, None, warn)


def _to_video(
    first: ImageFile, read: Callable[[], Iterator[tuple[str, Pixels]]], num_frames: int | None, warn: Warn
) -> Video:
    """read: yields every frame with its name for error messages."""
    is_deep, is_float = _is_deep(first), first.mode == "F"
    is_inverted = is_deep and getattr(first, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    # Pillow keeps only the upper 8 bits; just the mode of the raw data shows it.
    if not is_deep and first.tile and ";16" in str(first.tile[0]):
        warn("16-bit colour is read with 8 bits")

    def same_kind() -> Iterator[Pixels]:
        return _refuse_changes(read())

    def frames() -> Iterator[Frame]:
        for pixels in finite_pixels(same_kind, warn):
            yield Frame(pixels=pixels, pts_seconds=None)

    def auto_range() -> Range | None:
        if not is_deep:
            return (0.0, 255.0)
        return (0.0, 1.0) if is_float and lie_in_unit_range(same_kind) else None

    return Video(
        frames=frames,
        auto_range=auto_range,
        header=lambda: VideoHeader(num_frames=num_frames, seconds=None),
        is_inverted=is_inverted,
    )


def _refuse_changes(pictures: Iterator[tuple[str, Pixels]]) -> Iterator[Pixels]:
    first: Pixels | None = None
    for name, pixels in pictures:
        first = pixels if first is None else first
        if pixels.shape != first.shape:
            sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (pixels, first)]
            reason = f"{name} has {sizes[0]} pixels; expected {sizes[1]} as in the images before it"
            raise DecodeError(reason, "size-change")
        if pixels.dtype != first.dtype:
            reason = f"{name} holds {pixels.dtype}; expected {first.dtype} as in the images before it"
            raise DecodeError(reason, "type-change")
        yield pixels


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    with ExitStack() as stack:
        with _decoding(path):
            file = stack.enter_context(path.open("rb"))
        yield _image(path, file)


def _image(path: Path, file: IO[bytes]) -> ImageFile:
    """Read the header of an image's first page; too large frames are refused."""
    with _decoding(path):
        image = Image.open(file, formats=_FORMATS)
        check_frame_size(*image.size)
        return image


def _to_gray(image: Image.Image, path: Path) -> Pixels:
    with _decoding(path):
        upright = ImageOps.exif_transpose(image)
        if _is_deep(upright):
            return to_pixel_type(np.asarray(upright))
        if upright.mode in ("1", "L", "LA"):
            return np.array(upright.convert("L"))
        return to_luma(np.asarray(upright.convert("RGB")))


def _is_deep(image: Image.Image) -> bool:
    """Whether the image is gray of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def _has_more_pages(image: Image.Image) -> bool:
    # Further images in a JPEG are previews or depth maps, not pages.
    return image.format in ("PNG", "TIFF") and bool(getattr(image, "is_animated", False))


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Prefix errors with the file's name, without its folders."""
    try:
        with decode_errors("cannot be decoded"), warnings.catch_warnings():
            # Pillow warns of irregularities that it handles, and of sizes that are refused here.
            warnings.simplefilter("ignore")
            yield
    except DecodeError as error:
        reason, kind = str(error), error.kind
        if isinstance(error.__cause__, UnidentifiedImageError):  # its message is the whole path
            reason, kind = "not a PNG, JPEG or TIFF image", "not-image"
        elif isinstance(error.__cause__, Image.DecompressionBombError):
            kind = "too-large"
        raise DecodeError(f"{path.name!r}: {reason}", kind) from error


def _in_order(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda path: (_words(path.name), path))


def _words(name: str) -> list[str | int]:
    """Split a name into alternating text and numbers, text first."""
    return [int(word) if index % 2 else word for index, word in enumerate(re.split("([0-9]+)", name))]
