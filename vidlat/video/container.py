"""Video containers and codecs of every kind FFmpeg knows, through PyAV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidlat.errors import DecodeError
from vidlat.types import Frame, VideoHeader

MAX_FRAME_PIXELS = 64_000_000
"""A file of a kilobyte can announce a frame of gigabytes: larger ones are refused before decoding."""


MAX_MISSING_FRAMES = 2
"""A header that counts a frame or two more than there are is common and means nothing."""

Warn = Callable[[str], None]
"""Receives what the user should know of a file that was read all the same, in a few words."""


def is_container(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a container read here, whatever its name says."""
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # MP4 and QuickTime
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[:4] == b"\x1aE\xdf\xa3"  # Matroska and WebM
        or head[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")  # MPEG program and elementary streams
        or head[:4] in (b"GIF8", b"FLV\x01")
        or head[:16] == bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # ASF, WMV
        or (head[:1] == b"\x47" and head[188:189] == b"\x47")  # MPEG transport stream
    )


def read_container(path: Path, warn: Warn) -> Iterator[Frame]:
    """Yield every frame that decodes, as gray, rotation applied.

    Limited-range video is widened to the full range of uint8, or of uint16 above 8 bits; colour becomes
    BT.601 luma. warn: told, in the end, where the frames fall short of what the file announced.
    Raises DecodeError where the file cannot be opened, holds no video, or its codec reports an error.
    """
    try:
        # Metadata is never used, and real files carry bytes that are no text in it.
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise DecodeError("holds no video stream", "no-video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DecodeError("is coded in a way that FFmpeg does not know", "unknown-codec")
            _refuse_giants(stream.codec_context.width, stream.codec_context.height)
            # Frame threads would end a truncated file in silence; a worker has no more than a core anyway.
            stream.thread_type = "SLICE"
            first_seconds = last_seconds = None
            num_frames = 0
            for frame in container.decode(stream):
                _refuse_giants(frame.width, frame.height)
                num_frames += 1
                first_seconds = frame.time if first_seconds is None else first_seconds
                last_seconds = frame.time
                aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
                yield _to_gray(frame, first_seconds, float(aspect))
            _compare_with_header(container, stream, num_frames, first_seconds, last_seconds, warn)
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DecodeError(f"cannot be decoded as video: {reason}") from error


def probe_container(path: Path) -> VideoHeader:
    """What the header says of the first video stream; FFmpeg decodes no more than it needs to open it.

    Raises DecodeError where the file cannot be opened or holds no video.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise DecodeError("holds no video stream", "no-video")
            stream = container.streams.video[0]
            seconds = None
            if stream.duration is not None and stream.time_base is not None:
                seconds = float(stream.duration * stream.time_base)
            elif container.duration is not None:
                seconds = container.duration / av.time_base
            num_frames = stream.frames or None
            if num_frames is None and seconds and stream.average_rate:
                num_frames = round(seconds * stream.average_rate)
            return VideoHeader(num_frames=num_frames, seconds=seconds)
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        raise DecodeError("its header cannot be read") from error


def _compare_with_header(
    container: Any,
    stream: Any,
    num_frames: int,
    first_seconds: float | None,
    last_seconds: float | None,
    warn: Warn,
) -> None:
    """Headers lie in both directions, so a shortfall is no failure; but a cut-off download looks just so."""
    if stream.frames > num_frames + MAX_MISSING_FRAMES:
        warn(f"only {num_frames} of the {stream.frames} frames that its header states: cut off?")
        return
    stated = None
    if stream.duration is not None and stream.time_base is not None:
        stated = float(stream.duration * stream.time_base)
    elif container.duration is not None and not container.streams.audio:
        stated = container.duration / av.time_base
    if stated is None or first_seconds is None or last_seconds is None or num_frames < 2:
        return
    step = (last_seconds - first_seconds) / (num_frames - 1)
    found = last_seconds - first_seconds + step
    if stated - found > max(MAX_MISSING_FRAMES * step, 0.05 * stated):
        warn(f"ends after {found:.1f} of the {stated:.1f} seconds that its header states: cut off?")


def _to_gray(frame: av.VideoFrame, first_seconds: float | None, aspect: float) -> Frame:
    bits = max(component.bits for component in frame.format.components)
    pixels = frame.to_ndarray(format="gray16le" if bits > 8 else "gray")
    quarter_turns = round(frame.rotation / 90) % 4
    if quarter_turns:
        pixels = np.ascontiguousarray(np.rot90(pixels, quarter_turns))
        if quarter_turns % 2:
            aspect = 1 / aspect
    return Frame(
        pixels=pixels,
        pts_seconds=None if frame.time is None or first_seconds is None else frame.time - first_seconds,
        sample_aspect_ratio=aspect,
        is_damaged=frame.is_corrupt,
    )


def _refuse_giants(width: int, height: int) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise DecodeError(
            f"frames of {width}x{height} pixels; at most {MAX_FRAME_PIXELS:,} pixels are decoded", "too-large"
        )
