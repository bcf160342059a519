"""Videos beside one another, frame by frame, each under its label."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vidlat.errors import ShapeError
from vidlat.video.contact_sheet import cut_to_width
from vidlat.video.display_window import WHITE, shown_in, window_in_words

Frame = npt.NDArray[np.uint8]

_GAP, _LINE, _FONT = 12, 22, 17  # pixels
_BACKGROUND, _BRIGHT = 19, 230
_LEAST_WIDTH = 256  # of a column: room for a label, and for an eye
_SHAPE = 16 / 9  # of a screen


def side_by_side(
    videos: Mapping[str, Iterable[Frame]], num_columns: int | None = None, *, window: int = WHITE
) -> Iterator[Frame]:
    """Yield frames (H', W') uint8 that show labelled videos of frames (H, W) in rows, every pixel as it is.

    Small frames are enlarged: each of their pixels is a square. num_columns: so many that the whole is shaped
    like a screen, unless given. window: the gray level of all videos that is shown as white, which a line
    below them then tells. Frames of the videos are taken as they are needed.
    Raises ShapeError for videos of different shapes or lengths, or none.
    """
    sheet: _Sheet | None = None
    for number, frames in enumerate(zip_longest(*videos.values())):
        shapes = {frame.shape if frame is not None else "none" for frame in frames}
        sheet = sheet or _Sheet(list(videos), frames[0].shape, num_columns, window)
        if shapes != {sheet.shape}:
            raise ShapeError(f"frame {number}: expected videos of one shape (T, H, W): got {shapes}")
        yield sheet.showing(frames)
    if sheet is None:
        raise ShapeError("expected videos of one shape (T, H, W): got no frame")


class _Sheet:
    """Labels, the place of the frame below each, and a line on the window. shape: of a frame, (H, W)."""

    def __init__(
        self, labels: Sequence[str], shape: tuple[int, int], num_columns: int | None, window: int
    ) -> None:
        self.shape, self._window = shape, window
        self._scale = max(1, _LEAST_WIDTH // shape[1])
        height, width = (self._scale * side for side in shape)
        column_width = max(width, _LEAST_WIDTH)
        font = ImageFont.load_default(_FONT)
        lines = [_wrap(label, font, column_width) for label in labels]
        row_height = _LINE * max(map(len, lines)) + height
        num_columns = num_columns or _num_columns(len(labels), row_height / column_width)
        num_rows = -(-len(labels) // num_columns)
        whole_width, bottom = (
            (column_width + _GAP) * num_columns + _GAP,
            (row_height + _GAP) * num_rows + _GAP,
        )
        note = [] if window == WHITE else _wrap(window_in_words(window), font, whole_width - 2 * _GAP)
        note_height = (_LINE * len(note) + _GAP) * bool(note)
        sheet = Image.new("L", (whole_width, bottom + note_height), _BACKGROUND)
        draw = ImageDraw.Draw(sheet)
        for number, line in enumerate(note):
            draw.text((_GAP, bottom + _LINE * number), line, _BRIGHT, font)
        self._places = []
        for index, label in enumerate(lines):
            left = _GAP + (column_width + _GAP) * (index % num_columns)
            bottom = (row_height + _GAP) * (index // num_columns + 1)
            for number, line in enumerate(label):
                draw.text((left, bottom - height - _LINE * (len(label) - number)), line, _BRIGHT, font)
            self._places.append((slice(bottom - height, bottom), slice(left, left + width)))
        self._background = np.asarray(sheet)

    def showing(self, frames: Sequence[Frame]) -> Frame:
        """The whole with these frames."""
        shown = self._background.copy()
        for place, frame in zip(self._places, frames, strict=True):
            shown[place] = shown_in(self._window, frame).repeat(self._scale, 0).repeat(self._scale, 1)
        return shown


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
