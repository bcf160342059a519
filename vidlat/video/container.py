"""Video containers, with every codec that FFmpeg knows, through PyAV.

FFmpeg gets an open file and never a name: no file named `concat:a|b` or `frame%03d.gif`, and no playlist, can
make it open another file or a URL.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vidlat.config import Deinterlace
from vidlat.errors import DecodeError, one_line
from vidlat.types import Frame, Range, Video, VideoHeader, Warn
from vidlat.video.container_pixels import FrameConverter
from vidlat.video.deinterlace import deinterlaced
from vidlat.video.untrusted import MAX_FRAME_PIXELS, check_frame_size

Open = Callable[[], AbstractContextManager[io.RawIOBase]]

MAX_MISSING_FRAMES = 2
"""Headers that count one or two frames too many are common and harmless."""

GAP_STEPS = 10
"""Frames are probably missing where a step between two frames is as long as this many average steps."""

_FORMATS = (
    "mov,avi,matroska,mpeg,mpegts,mpegvideo,gif,asf,flv,ogg,mxf,nut,ivf,rm,dv,wtv,gxf,h264,hevc,m4v,mjpeg,vc1,obu,"
    "av1,yuv4mpegpipe,cine"
)
"""FFmpeg's names of the single-file video formats: no playlists, pictures or text."""

_OPTIONS = {
    "format_whitelist": _FORMATS,
    "protocol_whitelist": "none",
    "max_pixels": str(MAX_FRAME_PIXELS),
}
_DECODER_OPTIONS = {
    "max_pixels": str(MAX_FRAME_PIXELS),
    "trans_color": "0",  # transparent areas of a GIF are black, as undrawn ones are; default: white
}
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails

_STILL_OR_SOUND = (b"heic", b"heix", b"mif1", b"avif", b"crx ", b"M4A ", b"M4B ")  # brands of MP4-like files
_SIGNATURES = (
    *(b"\x1aE\xdf\xa3", b"GIF87a", b"GIF89a", b"FLV\x01", b"DKIF\0\0", b".RMF\0\0\0", b"YUV4MPEG2 "),
    b"nut/multimedia container\0",
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),  # ASF, WMV
    bytes.fromhex("060e2b34020501010d0102010102"),  # MXF
    *(b"\0\0\1\xba", b"\0\0\1\xb3", b"\0\0\1\xb0"),  # MPEG program stream, MPEG-1, 2 and 4 video
    *(b"\0\0\0\1\x67", b"\0\0\0\1\x27", b"\0\0\0\1\x09\x10", b"\0\0\0\1\x40\1"),  # H.264, HEVC
)
_GIF_TAIL_BYTES = 1024
_SHORT_ATOMS = (b"styp", b"wide", b"free", b"skip", b"pnot")
_OGG_VIDEO = (b"\x80theora", b"OVP80", b"BBCD\0")


def is_container(head: bytes) -> bool:
    """Whether a file is probably a video container; head: its first bytes, 1024 suffice."""
    return (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:11] == b"AVI")
        or (head[:4] == b"OggS" and any(codec in head for codec in _OGG_VIDEO))
        or _is_quicktime(head)
        or _is_transport_stream(head, 188)
        or _is_transport_stream(head[4:], 192)
    )


def _is_quicktime(head: bytes) -> bool:
    """Whether it starts with an MP4 or QuickTime atom: four bytes of size, four of name."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in _STILL_OR_SOUND
    # These names are English words too, but text does not start with a size below 16 MB.
    is_short = head[:1] == b"\0"
    return head[4:8] in (b"moov", b"mdat") or (is_short and head[4:8] in _SHORT_ATOMS)


def _is_transport_stream(head: bytes, num_packet_bytes: int) -> bool:
    """Whether every packet has a sync byte and a fourth byte of unscrambled content."""
    starts = range(0, min(len(head), 1024) - 3, num_packet_bytes)
    return len(starts) > 2 and all(head[at] == 0x47 and 0x10 <= head[at + 3] < 0x40 for at in starts)


def open_container(path: Path, warn: Warn, deinterlace: Deinterlace = "auto") -> Video:
    """Open a video file; see `open_stream`."""
    return open_stream(lambda: path.open("rb", buffering=0), warn, deinterlace)


def open_stream(
    open_file: Open, warn: Warn, deinterlace: Deinterlace = "auto", *, is_timed: bool = True
) -> Video:
    """Open a video: its first video stream that is no cover picture.

    open_file: opens it, for every pass. deinterlace: as for `deinterlaced`. is_timed: whether its times are
    used, so that wrong ones are told of.

    Frames are rotated and mirrored as a player displays them, uint8, or uint16 above 8 bits, over the full
    range of that type. Limited range is expanded, except for gray pixel formats, which FFmpeg defines as
    full range. Luma is the codec's Y, or BT.601 luma of RGB. Alpha is ignored. Packets that cannot be decoded
    are skipped; they, and frames missing against the header, become a warning at the end.
    Raises DecodeError, OSError.
    """
    container = _Container(open_file, warn, deinterlace, is_timed)
    return Video(frames=container.frames, auto_range=container.auto_range, header=container.header)


class _Container:
    """A video file, opened anew by every call. Remembers whether its pixels need 16 bits."""

    def __init__(self, open_file: Open, warn: Warn, deinterlace: Deinterlace, is_timed: bool) -> None:
        self._open_file = open_file
        self._deinterlace = deinterlace
        self._is_timed = is_timed
        self._warn = warn
        self._is_deep: bool | None = None
        self._started: Iterator[Frame] | None = None

    def frames(self) -> Iterator[Frame]:
        started, self._started = self._started, None
        return started or self._read()

    def _read(self) -> Iterator[Frame]:
        with _opened(self._open_file) as (container, stream):
            num_streams = len(_video_streams(container))
            if num_streams > 1:
                self._warn(f"holds {num_streams} video streams: only the first is read")
            decoding = _Decoding(container, stream, self._open_file)
            converter = FrameConverter()

            def converted(decoded: tuple[av.VideoFrame, _Shown]) -> tuple[Frame, _Shown]:
                frame, shown = decoded
                pixels, is_turned = converter.pixels(frame)
                self._is_deep = converter.is_deep
                aspect = 1 / decoding.aspect if is_turned else decoding.aspect
                return Frame(pixels, shown.seconds, aspect, shown.is_damaged), shown

            decoded = deinterlaced(decoding.frames(), self._deinterlace, self._warn)
            # Unlike a loop variable, `map` keeps no reference to the frame: see _Decoding.frames.
            yield from _with_repetitions(map(converted, decoded), decoding)
            if converter.lacks_palette:
                self._warn("declares no palette: its 8 bits are taken for gray levels")
            for text in decoding.warnings(self._is_timed):
                self._warn(text)
            if container.format.name == "gif" and not _gif_ends(self._open_file):
                self._warn("lacks the end mark of a GIF: truncated?")

    def auto_range(self) -> Range:
        if self._is_deep is None:
            # Only the first frame tells. `frames` continues this pass instead of decoding it again.
            frames = self._read()
            first = next(frames, None)
            self._started = chain([] if first is None else [first], frames)
        return (0.0, 65535.0) if self._is_deep else (0.0, 255.0)

    def header(self) -> VideoHeader:
        with _opened(self._open_file) as (container, stream):
            seconds = _declared_seconds(container, stream)
            if seconds is None and container.duration is not None:
                seconds = container.duration / av.time_base
            num_frames = _declared_num_frames(container, stream)
            if not num_frames and seconds and stream.average_rate:
                num_frames = round(seconds * stream.average_rate)
            return VideoHeader(num_frames=num_frames or None, seconds=seconds)


class _Shown(NamedTuple):
    """When a frame is shown.

    seconds: its time. is_damaged: the decoder says so, or it may depend on a lost packet. repeated_at: the
    times before it at which the previous frame is shown again.
    """

    seconds: float | None
    is_damaged: bool
    repeated_at: tuple[float | None, ...]


def _with_repetitions(frames: Iterator[tuple[Frame, _Shown]], decoding: _Decoding) -> Iterator[Frame]:
    previous: Frame | None = None
    for frame, shown in frames:
        if previous:
            for seconds in shown.repeated_at:
                yield previous._replace(pts_seconds=seconds)
        yield frame
        previous = frame
    if previous:
        for seconds in decoding.repeated_at_end():
            yield previous._replace(pts_seconds=seconds)


class _Decoding:
    """One pass over a stream; afterwards, its warnings."""

    def __init__(self, container: InputContainer, stream: VideoStream, open_file: Open) -> None:
        self.aspect = float(stream.sample_aspect_ratio or 1)
        self._container = container
        self._stream = stream
        self._open_file = open_file
        self._last_packet: tuple[int, int] | None = None  # of an AVI: its time and where its data starts
        self._clock = _Clock(stream.time_base or Fraction(0))
        self._sizes: dict[str, None] = {}  # in the order of their appearance
        self._num_frames = self._num_hidden = self._num_lost = 0
        self._error: av.FFmpegError | None = None

    def frames(self) -> Iterator[tuple[av.VideoFrame, _Shown]]:
        """Yield every decodable frame. Raises the first FFmpegError where there is none."""
        is_in_doubt = False
        # AVI times packets in decoding order, from which FFmpeg derives times that jump back and forth: take
        # the n-th time for the n-th frame. The decoder delays at most `reorder_depth` frames.
        # A time that no packet has is that of an empty chunk, which repeats the frame before.
        times: deque[range] = deque(maxlen=self._stream.codec_context.reorder_depth + 1)
        is_avi = self._container.format.name == "avi"
        for packet in self._packets():
            span = range(0)  # of the packet and the empty chunks before it
            if is_avi and packet.dts is not None:
                latest = packet.dts - 1 if self._last_packet is None else self._last_packet[0]
                span = range(min(latest + 1, packet.dts), packet.dts + 1)
                self._last_packet = packet.dts, max(8, packet.pos or 0)
            try:
                frames = self._stream.decode(packet)
            except av.FFmpegError as error:
                self._lose(error)
                is_in_doubt = True
                continue
            self._num_hidden += packet.is_discard
            times.append(span)
            while frames:
                frame = frames.pop(0)
                is_in_doubt = is_in_doubt and not frame.key_frame
                is_cut = packet.is_corrupt and packet.pts == frame.pts
                is_damaged = is_in_doubt or is_cut or frame.is_corrupt
                *repeated, pts = ((times.popleft() if times else None) or [None]) if is_avi else [frame.pts]
                repeated_at = tuple(map(self._clock.seconds, repeated))
                self._num_frames += len(repeated) + 1
                self._sizes[f"{frame.width}x{frame.height}"] = None
                yield frame, _Shown(self._clock.seconds(pts), is_damaged, repeated_at)
                del frame  # while a reference exists, the GIF decoder copies the frame before it draws on it
        if self._error and not self._num_frames:
            raise self._error

    def repeated_at_end(self) -> Iterator[float | None]:
        """Yield, after `frames`, the times of empty chunks at the end of an AVI, which FFmpeg passes over."""
        if self._last_packet is None:
            return
        latest, data_at = self._last_packet
        num_missing = _declared_num_frames(self._container, self._stream) - (latest + 1)
        if num_missing > 0:
            with self._open_file() as file:
                num_empty = _num_empty_chunks(file, data_at, num_missing)
            self._num_frames += num_empty
            yield from (self._clock.seconds(latest + number) for number in range(1, num_empty + 1))

    def warnings(self, is_timed: bool = True) -> Iterator[str]:
        """Yield the warnings about this pass, after its end."""
        if self._error:
            yield f"{self._num_lost} packets could not be decoded: {one_line(self._error)}"
        if is_timed and self._clock.num_untimed:
            yield f"{self._clock.num_untimed} frames have no time, or none after the previous frame's"
        if is_timed and self._clock.has_gap:
            yield f"frames are probably missing: a gap of {self._clock.longest:.1f} seconds"
        if len(self._sizes) > 1:
            yield "the frame size changes from {} to {}".format(*self._sizes)
        yield from self._shortfall()

    def _packets(self) -> Iterator[Packet[Any]]:
        """Yield the stream's packets and an empty one, on which the decoder releases delayed frames."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except av.FFmpegError as error:
            self._lose(error)
        except IndexError:  # PyAV fails at the end of a file if streams appeared during it
            pass
        yield Packet()

    def _lose(self, error: av.FFmpegError) -> None:
        if isinstance(error, MemoryError):  # rarely the packet's fault
            raise error
        self._num_lost += 1
        self._error = self._error or error

    def _shortfall(self) -> Iterator[str]:
        """Compare with the header. A warning only: it may be wrong, though truncated files look the same."""
        num_declared = _declared_num_frames(self._container, self._stream) - self._num_hidden
        if num_declared > self._num_frames + MAX_MISSING_FRAMES:
            yield f"only {self._num_frames} of the {num_declared} frames that its header declares: truncated?"
            return
        declared = _declared_seconds(self._container, self._stream)
        if declared is None or self._num_frames < 2:
            return
        step = self._clock.latest / (self._num_frames - 1)
        found = self._clock.latest + step
        if declared - found > max((MAX_MISSING_FRAMES + 0.5) * step, 0.05 * declared):
            yield f"ends after {found:.1f} of the {declared:.1f} seconds that its header declares: truncated?"


class _Clock:
    """Converts timestamps to seconds since the first frame; missing and non-increasing ones to None.

    latest: the latest time. longest: the longest step between frames. num_untimed: the number of Nones.
    """

    def __init__(self, unit: Fraction) -> None:
        self.latest = self.longest = 0.0
        self.num_untimed = 0
        self._num_steps = 0
        self._unit = unit
        self._first: int | None = None
        self._last: int | None = None

    @property
    def has_gap(self) -> bool:
        """Whether one step is much longer than the average of the others."""
        return self.longest * (self._num_steps - 1) > GAP_STEPS * (self.latest - self.longest) > 0

    def seconds(self, pts: int | None) -> float | None:
        if pts is None or (self._last is not None and pts <= self._last):
            self.num_untimed += 1
            return None
        if self._first is None or self._last is None:
            self._first = self._last = pts
        else:
            self._num_steps += 1
        self.longest = max(self.longest, float((pts - self._last) * self._unit))
        self.latest = float((pts - self._first) * self._unit)
        self._last = pts
        return self.latest


@contextmanager
def _opened(open_file: Open) -> Iterator[tuple[InputContainer, VideoStream]]:
    with _open(open_file, _OPTIONS) as container:
        streams = _video_streams(container)
        if not streams:
            raise DecodeError("holds no video stream, only sound, text or cover pictures", "no-video")
        stream = streams[0]
        # PyAV declares this as never None, which is wrong.
        context: VideoCodecContext | None = stream.codec_context
        if context is None:
            raise DecodeError(
                "FFmpeg does not know its codec: convert it, to H.264 for example", "unknown-codec"
            )
        if not context.width:  # FFmpeg drops sizes beyond max_pixels
            _refuse_declared_giant(open_file, stream.index)
        # Frame threads hide the truncation of a file; a worker has one core anyway.
        context.thread_type = ThreadType.SLICE
        context.options = _DECODER_OPTIONS
        yield container, stream


@contextmanager
def _open(open_file: Open, options: dict[str, str]) -> Iterator[InputContainer]:
    with open_file() as file, _av_errors():
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        try:
            # Metadata is not used, and is not always valid text.
            container = av.open(nameless, "r", options=options, metadata_errors="replace")
        except av.error.ArgumentError as error:  # FFmpeg's error for a format that is not in the whitelist
            reason = "not a supported video format: convert it, to MP4 for example"
            raise DecodeError(reason, "unsupported") from error
        with container:
            yield container


@contextmanager
def _av_errors() -> Iterator[None]:
    """Turn PyAV's errors into DecodeError; errors of the disk stay OSError."""
    try:
        yield
    except av.InvalidDataError as error:
        what = "cut off, or no video"
        raise DecodeError(f"cannot be decoded as video: {one_line(error)}: {what}") from error
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(f"cannot be decoded as video: {one_line(error)}") from error


def _refuse_declared_giant(open_file: Open, index: int) -> None:
    """Check the frame size again, without a decoder that could allocate a frame."""
    with _open(open_file, _OPTIONS | {"codec_whitelist": "none"}) as container:
        context = container.streams[index].codec_context
        if isinstance(context, VideoCodecContext):
            check_frame_size(context.width, context.height)


def _num_empty_chunks(file: io.RawIOBase, data_at: int, at_most: int) -> int:
    """The number of empty chunks of an AVI stream after the chunk whose data starts at `data_at`."""
    at, num_empty = data_at - 8, 0
    file.seek(at)
    own = head = file.read(8) or b""  # a chunk: its name, of which two letters are the stream, and its length
    while len(head) == 8 and head[:4] != b"idx1" and num_empty < at_most:
        length = int.from_bytes(head[4:], "little")
        num_empty += head[:2] == own[:2] and not length
        at += 12 if head[:4] in (b"LIST", b"RIFF") else 8 + length + length % 2
        file.seek(at)
        head = file.read(8) or b""
    return num_empty


def _gif_ends(open_file: Open) -> bool:
    """Whether a GIF, which declares no length, has its end mark; zeros after it are common."""
    with open_file() as file:
        file.seek(max(0, file.seek(0, 2) - _GIF_TAIL_BYTES))
        return file.read().rstrip(b"\0").endswith(b";")


def _video_streams(container: InputContainer) -> list[VideoStream]:
    return [stream for stream in container.streams.video if not stream.disposition & _PICTURES]


def _declared_num_frames(container: InputContainer, stream: VideoStream) -> int:
    """Frames by the header, 0 where it says nothing; of MP4 only those that its edit list leaves indexed."""
    num_indexed = len(stream.index_entries) if "mp4" in container.format.name else 0
    return min(stream.frames, num_indexed or stream.frames)


def _declared_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(Fraction(stream.duration) * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska's
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        return (hours * 60 + minutes) * 60 + seconds
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return None
