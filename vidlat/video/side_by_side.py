"""Videos beside one another, frame by frame, each under its label."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vidlat.errors import ShapeError
from vidlat.video.contact_sheet import cut_to_width

Frames = npt.NDArray[np.uint8]

_GAP, _LINE, _FONT = 10, 17, 13  # pixels
_BACKGROUND, _BRIGHT = 19, 230
_LEAST_WIDTH = 128  # of a column: room for a label, and for an eye
_SHAPE = 16 / 9  # of a screen


def side_by_side(videos: Mapping[str, Frames], num_columns: int | None = None) -> Iterator[Frames]:
    """Yield frames (H', W') uint8 that show labelled videos (T, H, W) in rows, every pixel as it is.

    Small frames are enlarged: each of their pixels is a square. num_columns: so many that the whole is shaped
    like a screen, unless given.
    Raises ShapeError for videos of different shapes, or none.
    """
    shapes = {video.shape for video in videos.values()}
    if len(shapes) != 1:
        raise ShapeError(f"expected videos of one shape (T, H, W): got {sorted(shapes)}")
    num_frames, height, width = shapes.pop()
    scale = max(1, _LEAST_WIDTH // width)
    height, width = scale * height, scale * width
    column_width = max(width, _LEAST_WIDTH)
    font = ImageFont.load_default(_FONT)
    lines = [_wrap(label, font, column_width) for label in videos]
    row_height = _LINE * max(map(len, lines)) + height
    num_columns = num_columns or _num_columns(len(videos), row_height / column_width)
    num_rows = -(-len(videos) // num_columns)
    shape = (column_width + _GAP) * num_columns + _GAP, (row_height + _GAP) * num_rows + _GAP
    sheet = Image.new("L", shape, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    places = []
    for index, label in enumerate(lines):
        left = _GAP + (column_width + _GAP) * (index % num_columns)
        bottom = (row_height + _GAP) * (index // num_columns + 1)
        for number, line in enumerate(label):
            draw.text((left, bottom - height - _LINE * (len(label) - number)), line, _BRIGHT, font)
        places.append((slice(bottom - height, bottom), slice(left, left + width)))
    background = np.asarray(sheet)
    for number in range(num_frames):
        frame = background.copy()
        for place, video in zip(places, videos.values(), strict=True):
            frame[place] = video[number].repeat(scale, 0).repeat(scale, 1)
        yield frame


def _num_columns(num_tiles: int, tile_shape: float) -> int:
    """So many that the whole is shaped like a screen, and the last row as full as can be."""
    fitting = max(1, round(math.sqrt(num_tiles * tile_shape * _SHAPE)))
    return -(-num_tiles // -(-num_tiles // fitting))


def _wrap(label: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float) -> list[str]:
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    lines = [""]
    for word in re.split(r"\s+(?!\d)", label):  # a number stays with the word before it
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [cut_to_width(draw, line, font, width) for line in lines]
