"""Videos at a glance: one picture, a row of evenly spaced frames a video."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vidlat.errors import ShapeError
from vidlat.video.writer import appearing_whole

Frames = npt.NDArray[np.uint8] | npt.NDArray[np.floating]

_CELL, _GAP, _MARGIN, _LABEL, _CAPTION = 128, 6, 24, 30, 20  # pixels
_BACKGROUND, _BRIGHT, _DIM = (17, 19, 23), (228, 231, 236), (128, 134, 145)


class Row(NamedTuple):
    """A label and a video (T, H, W), uint8 or float in [0, 1], and what to show below it.

    below: a reconstruction, say, whose same frames stand under those of the first. note: what to say of the
    video instead of its length. numbers: those of the frames, where they were picked from a longer video.
    """

    label: str
    frames: Frames
    below: Frames | None = None
    note: str | None = None
    numbers: Sequence[int] | None = None


def contact_sheet(
    rows: Sequence[Row | tuple[str, Frames]],
    path: Path,
    columns: int = 8,
    below: str = "reconstruction",
    title: str = "",
) -> None:
    """Write a PNG with up to `columns` evenly spaced frames of each video, first and last among them.

    Small frames are enlarged and large ones reduced to one cell size, their shape kept. Rows with a second
    video say `below` in their label. title: a line above all rows. The file appears whole or not at all.
    Raises ShapeError for an empty row or a second video of another length, InputError where the file cannot
    be written.
    """
    strips = [_strip(Row(*row), columns, below) for row in rows]
    if not strips:
        raise ShapeError("a contact sheet needs at least one video: got none")
    top = _MARGIN + (_LABEL + _MARGIN) * bool(title)
    height = top + sum(strip.height + _MARGIN for strip in strips)
    sheet = Image.new("RGB", (strips[0].width + 2 * _MARGIN, height), _BACKGROUND)
    if title:
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
        draw.text((_MARGIN, _MARGIN), cut_to_width(draw, title, font, strips[0].width), _BRIGHT, font)
    for strip in strips:
        sheet.paste(strip, (_MARGIN, top))
        top += strip.height + _MARGIN
    with appearing_whole(path) as draft:
        sheet.save(draft, format="PNG")


def _strip(row: Row, columns: int, below: str) -> Image.Image:
    """One row as a picture: label, one or two lines of frames, frame numbers."""
    num_frames = len(row.frames)
    videos = [row.frames] if row.below is None else [row.frames, row.below]
    if not num_frames or any(video.ndim != 3 or len(video) != num_frames for video in videos):
        raise ShapeError(
            f"{row.label}: expected videos of one length, (T, H, W): got {[v.shape for v in videos]}"
        )
    width = columns * _CELL + (columns - 1) * _GAP
    height = _LABEL + len(videos) * (_CELL + _GAP) - _GAP + _CAPTION
    strip = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    note = row.note
    if note is None:
        note = "1 frame" if num_frames == 1 else f"{num_frames} frames"
        note += f", {below} below" if row.below is not None else ""
    large, small = ImageFont.load_default(17), ImageFont.load_default(13)
    note = cut_to_width(draw, note, small, 2 * width / 3)
    note_left = width - draw.textlength(note, small)
    draw.text((0, 0), cut_to_width(draw, row.label, large, note_left - 2 * _GAP), _BRIGHT, large)
    draw.text((note_left, 3), note, _DIM, small)
    for column, index in enumerate(evenly_spaced(num_frames, columns)):
        left = column * (_CELL + _GAP)
        for line, video in enumerate(videos):
            cell = _thumbnail(video[index])
            top = _LABEL + line * (_CELL + _GAP)
            strip.paste(cell, (left + (_CELL - cell.width) // 2, top + (_CELL - cell.height) // 2))
        number = index if row.numbers is None else row.numbers[index]
        draw.text((left + _CELL / 2, height), str(number), _DIM, small, anchor="mb")
    return strip


def evenly_spaced(num_items: int, num_chosen: int) -> list[int]:
    """Indices of up to `num_chosen` of `num_items`, in order, first and last among them."""
    places = np.linspace(0, num_items - 1, min(num_chosen, num_items))
    return [int(index) for index in np.unique(places.round().astype(int))]


def _thumbnail(frame: npt.NDArray[np.generic]) -> Image.Image:
    if np.issubdtype(frame.dtype, np.floating):
        frame = np.rint(np.clip(np.nan_to_num(frame), 0, 1) * 255)
    image = Image.fromarray(frame.astype(np.uint8))
    scale = _CELL / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def cut_to_width(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float
) -> str:
    """One line of text without its start, as far as it does not fit: the end of a path tells videos apart.

    Letters lose their accents, which Pillow's font lacks. width: in pixels.
    """
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = " ".join(text.replace("ß", "ss").split())  # Pillow cannot measure a line break
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength("…" + text, font) > width:
        text = text[1:]
    return "…" + text
