"""Videos at a glance: one picture, a row of frames a video, some spread over it and some in succession."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vidlat.errors import ShapeError
from vidlat.video.display_window import WHITE, shown_in, window_in_words, window_of
from vidlat.video.writer import appearing_whole

Frames = npt.NDArray[np.uint8] | npt.NDArray[np.floating]
Gray = npt.NDArray[np.uint8]

COLUMNS = 7
"""Frames of a row, at most."""

_IN_A_ROW = 4
"""Those that follow one another, as motion is seen only so: two on each side of a border of stacks."""

_CELL, _GAP, _MARGIN, _LABEL, _CAPTION = 256, 8, 24, 34, 26  # pixels; the whole fits a screen of 1920
_LARGE, _SMALL = 22, 17  # sizes of the font
_BACKGROUND, _BRIGHT, _DIM, _MARK = (17, 19, 23), (228, 231, 236), (158, 164, 175), (242, 179, 61)


class Row(NamedTuple):
    """A label and a video (T, H, W), uint8 or float in [0, 1], and what to show below it.

    below: a reconstruction, say, whose same frames stand under those of the first. note: what to say of the
    video instead of its length. numbers: those of the frames, where they were picked from a longer video; all
    are shown then. frame_step: frames from one border of stacks to the next, where they are to be marked.
    """

    label: str
    frames: Frames
    below: Frames | None = None
    note: str | None = None
    numbers: Sequence[int] | None = None
    frame_step: int | None = None


class _Shown(NamedTuple):
    """The frames of a row: one or two videos (T, H, W), and the number of each frame."""

    label: str
    note: str
    videos: Sequence[Gray]
    numbers: Sequence[int]
    frame_step: int | None


def contact_sheet(
    rows: Sequence[Row | tuple[str, Frames]],
    path: Path,
    below: str = "reconstruction",
    title: str = "",
    *,
    one_window: bool = True,
) -> None:
    """Write a PNG with the frames of each video that `frames_to_show` names, COLUMNS at most.

    Small frames are enlarged by a whole factor, large ones reduced, to 256 pixels. Rows with a second video
    say `below` in their label. title: a line above all rows. Dark videos are shown brighter, and their rows
    say so: in one window of gray levels for all, or one for each row, which its second video shares. The file
    appears whole or not at all.
    Raises ShapeError for an empty row or a second video of another length, InputError where the file cannot
    be written.
    """
    shown = [_picked(Row(*row), below) for row in rows]
    if not shown:
        raise ShapeError("a contact sheet needs at least one video: got none")
    own = [window_of(row.videos[0]) for row in shown]
    windows = [max(own)] * len(own) if one_window else own
    strips = [_strip(row, window) for row, window in zip(shown, windows, strict=True)]
    top = _MARGIN + (_LABEL + _MARGIN) * bool(title)
    height = top + sum(strip.height + _MARGIN for strip in strips)
    sheet = Image.new("RGB", (strips[0].width + 2 * _MARGIN, height), _BACKGROUND)
    if title:
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LARGE)
        draw.text((_MARGIN, _MARGIN), cut_to_width(draw, title, font, strips[0].width), _BRIGHT, font)
    for strip in strips:
        sheet.paste(strip, (_MARGIN, top))
        top += strip.height + _MARGIN
    with appearing_whole(path) as draft:
        sheet.save(draft, format="PNG")


def frames_to_show(num_frames: int, frame_step: int | None = None) -> list[int]:
    """Numbers of up to COLUMNS frames: some spread over the video, then some that follow one another.

    These lie on both sides of a border of stacks, the nearest to a quarter of the video, if there is one. A
    short video is shown whole.
    """
    if num_frames <= COLUMNS:
        return list(range(num_frames))
    border = quarter = num_frames // 4
    if frame_step:
        borders = range(frame_step, num_frames, frame_step)
        border = min(borders, key=lambda each: abs(each - quarter), default=quarter)
    start = min(max(border - _IN_A_ROW // 2, 0), num_frames - _IN_A_ROW)
    return [*evenly_spaced(num_frames, COLUMNS - _IN_A_ROW), *range(start, start + _IN_A_ROW)]


def evenly_spaced(num_items: int, num_chosen: int) -> list[int]:
    """Indices of up to `num_chosen` of `num_items`, in order, first and last among them."""
    places = np.linspace(0, num_items - 1, min(num_chosen, num_items))
    return [int(index) for index in np.unique(places.round().astype(int))]


def _picked(row: Row, below: str) -> _Shown:
    num_frames = len(row.frames)
    videos = [row.frames] if row.below is None else [row.frames, row.below]
    if not num_frames or any(video.ndim != 3 or len(video) != num_frames for video in videos):
        raise ShapeError(
            f"{row.label}: expected videos of one length, (T, H, W): got {[v.shape for v in videos]}"
        )
    note = row.note
    if note is None:
        note = "1 frame" if num_frames == 1 else f"{num_frames} frames"
        note += f", {below} below" if row.below is not None else ""
    numbers = row.numbers
    if numbers is None:
        numbers = frames_to_show(num_frames, row.frame_step)
        videos = [video[numbers] for video in videos]
    return _Shown(row.label, note, [_to_bytes(video) for video in videos], numbers, row.frame_step)


def _to_bytes(frames: Frames) -> Gray:
    if np.issubdtype(frames.dtype, np.floating):
        frames = np.rint(np.clip(np.nan_to_num(frames), 0, 1) * 255)
    return frames.astype(np.uint8)


def _strip(row: _Shown, window: int) -> Image.Image:
    """One row as a picture: label, one or two lines of frames, frame numbers."""
    lines = [[_tile(frame) for frame in shown_in(window, video)] for video in row.videos]
    line_height = max(tile.height for tiles in lines for tile in tiles)
    height = _LABEL + len(lines) * (line_height + _GAP) - _GAP + _CAPTION
    strip = Image.new("RGB", (COLUMNS * (_CELL + _GAP) + _GAP, height), _BACKGROUND)
    draw, small = ImageDraw.Draw(strip), ImageFont.load_default(_SMALL)
    _write_label(draw, row, window, strip.width)
    left, before = 0, -1
    for column, number in enumerate(row.numbers):
        left += 2 * _GAP if number < before else 0  # where those that follow one another begin
        for line, tiles in enumerate(lines):
            tile, top = tiles[column], _LABEL + line * (line_height + _GAP)
            strip.paste(tile, (left + (_CELL - tile.width) // 2, top + (line_height - tile.height) // 2))
        draw.text((left + _CELL / 2, height), f"frame {number}", _DIM, small, anchor="mb")
        if row.frame_step and 0 < number == before + 1 and number % row.frame_step == 0:
            edge = left - _GAP // 2
            draw.line((edge, _LABEL, edge, height - _CAPTION), _MARK, 3)
            draw.text((edge, height), "stack border", _MARK, small, anchor="mb")
        left, before = left + _CELL + _GAP, number
    return strip


def _write_label(draw: ImageDraw.ImageDraw, row: _Shown, window: int, width: int) -> None:
    """The label on the left, the note on the right."""
    large, small = ImageFont.load_default(_LARGE), ImageFont.load_default(_SMALL)
    note = row.note if window == WHITE else f"{row.note}; {window_in_words(window)}"
    note = cut_to_width(draw, note, small, 2 * width / 3)
    note_left = width - draw.textlength(note, small)
    draw.text((0, 0), cut_to_width(draw, row.label, large, note_left - 2 * _GAP), _BRIGHT, large)
    draw.text((note_left, 4), note, _DIM, small)


def _tile(frame: Gray) -> Image.Image:
    """A frame as large as fits a cell; pixels of a small one become squares, so that nothing is blurred."""
    image, side = Image.fromarray(frame), max(frame.shape)
    if scale := _CELL // side:
        return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    width, height = (max(1, round(length * _CELL / side)) for length in image.size)
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
