"""The size that a JPEG, JPEG-LS or JPEG 2000 picture states about itself, found without decoding."""

from __future__ import annotations

_JP2, _JP2_CODESTREAM = b"\0\0\0\x0cjP  ", b"jp2c"
_SOC_SIZ = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF markers; F7 is that of JPEG-LS
_LONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # that no length follows


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None where the bytes are no such picture or break off before they say."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    start = _jp2_codestream(data) if data.startswith(_JP2) else 0
    if data[start : start + 4] != _SOC_SIZ or len(data) < start + 24:
        return None
    right, bottom, left, top = (_number(data, start + place, 4) for place in (8, 12, 16, 20))
    return right - left, bottom - top


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0x00, 0xFF):  # what decoders skip on their way to a marker
            place += 1
        elif marker in _FRAME_HEADERS:
            return _number(data, place + 7, 2), _number(data, place + 5, 2)
        else:
            place += 2 + (0 if marker in _LONE_MARKERS else _number(data, place + 2, 2))
    return None


def _jp2_codestream(data: bytes) -> int:
    """Where the codestream starts among the boxes of a JP2 file; the end of the data where there is none."""
    place = 0
    while place + 16 <= len(data):
        num_bytes, content = _number(data, place, 4), place + 8
        if num_bytes == 1:
            num_bytes, content = _number(data, place + 8, 8), place + 16
        if data[place + 4 : place + 8] == _JP2_CODESTREAM:
            return content
        if num_bytes < 8:
            break
        place += num_bytes
    return len(data)


def _number(data: bytes, place: int, num_bytes: int) -> int:
    return int.from_bytes(data[place : place + num_bytes], "big")
