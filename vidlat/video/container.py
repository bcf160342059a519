"""Video containers and codecs of every kind FFmpeg knows, through PyAV.

FFmpeg gets an open file and never a name: neither a file called `concat:a|b` or `frame%03d.gif` nor a
playlist makes it open another file or an address.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vidlat.errors import DecodeError, one_line
from vidlat.types import Frame, Range, Video, VideoHeader, Warn
from vidlat.video.av_frame import FrameConverter
from vidlat.video.untrusted import MAX_FRAME_PIXELS, check_frame_size

MAX_MISSING_FRAMES = 2
"""A header that counts a frame or two more than there are is common and means nothing."""

GAP_STEPS = 10
"""A step between two frames that is as long as so many others is where frames are missing, most likely."""

_FORMATS = (
    "mov,avi,matroska,mpeg,mpegts,mpegvideo,gif,asf,flv,ogg,mxf,nut,ivf,rm,dv,wtv,gxf,h264,hevc,m4v,mjpeg,vc1,obu,"
    "av1,yuv4mpegpipe,cine"
)
"""FFmpeg's formats of one file with video in it: no playlists, no pictures, no text."""

_OPTIONS = {
    "format_whitelist": _FORMATS,
    "protocol_whitelist": "none",
    "max_pixels": str(MAX_FRAME_PIXELS),
}
_DECODER_OPTIONS = {
    "max_pixels": str(MAX_FRAME_PIXELS),
    "trans_color": "0",  # what a GIF leaves transparent is black, as what it never draws; else it is white
}
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails

_STILL_OR_SOUND = (b"heic", b"heix", b"mif1", b"avif", b"crx ", b"M4A ", b"M4B ")  # brands of MP4's relatives
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
    """Whether a file that starts with these bytes (1024 are enough) is a container, most likely of video."""
    return (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:11] == b"AVI")
        or (head[:4] == b"OggS" and any(codec in head for codec in _OGG_VIDEO))
        or _is_quicktime(head)
        or _is_transport_stream(head, 188)
        or _is_transport_stream(head[4:], 192)
    )


def _is_quicktime(head: bytes) -> bool:
    """Whether it starts with an atom of MP4 or QuickTime: four bytes of its size, four of its name."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in _STILL_OR_SOUND
    # These are words, too: a text has no size below 16 MB before them.
    is_short = head[:1] == b"\0"
    return head[4:8] in (b"moov", b"mdat") or (is_short and head[4:8] in _SHORT_ATOMS)


def _is_transport_stream(head: bytes, num_packet_bytes: int) -> bool:
    """Whether packets follow each other: a sync byte, and in the fourth no scrambling and some content."""
    starts = range(0, min(len(head), 1024) - 3, num_packet_bytes)
    return len(starts) > 2 and all(head[at] == 0x47 and 0x10 <= head[at + 3] < 0x40 for at in starts)


def open_container(path: Path, warn: Warn) -> Video:
    """Open a video file; of its streams, the first that is video and no cover picture.

    Frames come as a player shows them, rotated and mirrored, uint8, or uint16 where they have more than 8
    bits, over the whole range of that type: limited range is widened, but gray is never limited, whatever
    its tag says, which is FFmpeg's convention. Luma is the Y of the codec, and BT.601's of what is coded as
    RGB. Alpha is ignored. Packets that do not decode are left out, and told of in the end, as is what the
    header announced and did not come. Raises DecodeError, OSError.
    """
    container = _Container(path, warn)
    return Video(frames=container.frames, auto_range=container.auto_range, header=container.header)


class _Container:
    """A file that every call opens anew, and once it is known, whether its pixels take 16 bits."""

    def __init__(self, path: Path, warn: Warn) -> None:
        self._path = path
        self._warn = warn
        self._is_deep: bool | None = None
        self._begun: Iterator[Frame] | None = None

    def frames(self) -> Iterator[Frame]:
        begun, self._begun = self._begun, None
        return begun or self._read()

    def _read(self) -> Iterator[Frame]:
        with _opened(self._path) as (container, stream):
            num_streams = len(_video_streams(container))
            if num_streams > 1:
                self._warn(f"holds {num_streams} video streams: the first is read")
            decoding = _Decoding(container, stream)
            converter = FrameConverter()

            def converted(frame: av.VideoFrame) -> Frame:
                pixels, is_turned = converter.pixels(frame)
                self._is_deep = converter.is_deep
                return Frame(
                    pixels=pixels,
                    pts_seconds=decoding.seconds,
                    sample_aspect_ratio=1 / decoding.aspect if is_turned else decoding.aspect,
                    is_damaged=decoding.is_damaged,
                )

            # A map keeps hold of no frame, see there.
            yield from map(converted, decoding.frames())
            for oddity in decoding.oddities():
                self._warn(oddity)
            if container.format.name == "gif" and not _gif_ends(self._path):
                self._warn("does not end as a GIF does: truncated?")

    def auto_range(self) -> Range:
        if self._is_deep is None:
            # The first frame tells. What it took to get there is not done again: `frames` goes on from it.
            frames = self._read()
            first = next(frames, None)
            self._begun = chain([] if first is None else [first], frames)
        return (0.0, 65535.0) if self._is_deep else (0.0, 255.0)

    def header(self) -> VideoHeader:
        with _opened(self._path) as (container, stream):
            seconds = _stated_seconds(container, stream)
            if seconds is None and container.duration is not None:
                seconds = container.duration / av.time_base
            num_frames = _stated_num_frames(container, stream)
            if not num_frames and seconds and stream.average_rate:
                num_frames = round(seconds * stream.average_rate)
            return VideoHeader(num_frames=num_frames or None, seconds=seconds)


class _Decoding:
    """One pass over a stream, and what was odd about it once it is over.

    seconds, is_damaged: of the frame that came last; it is damaged where the decoder says so, or where it may
    lean on a packet that was lost.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.aspect = float(stream.sample_aspect_ratio or 1)
        self.seconds: float | None = None
        self.is_damaged = False
        self._container = container
        self._stream = stream
        self._clock = _Clock(stream.time_base or Fraction(0))
        self._sizes: list[str] = []
        self._num_frames = self._num_hidden = self._num_lost = 0
        self._error: av.FFmpegError | None = None

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes. Raises FFmpegError where none does and a packet says why."""
        is_in_doubt = False
        # AVI times packets in the order of decoding, and what FFmpeg makes of that jumps to and fro: its n-th
        # frame has the n-th time. The decoder holds back no more frames than that it needs to reorder them.
        times: deque[int | None] = deque(maxlen=self._stream.codec_context.reorder_depth + 1)
        is_avi = self._container.format.name == "avi"
        for packet in self._packets():
            try:
                frames = self._stream.decode(packet)
            except av.FFmpegError as error:
                self._lose(error)
                is_in_doubt = True
                continue
            self._num_hidden += packet.is_discard
            times.append(packet.dts)
            while frames:
                frame = frames.pop(0)
                is_in_doubt = is_in_doubt and not frame.key_frame
                is_cut = packet.is_corrupt and packet.pts == frame.pts
                self.is_damaged = is_in_doubt or is_cut or frame.is_corrupt
                self.seconds = self._clock.seconds(
                    (times.popleft() if times else None) if is_avi else frame.pts
                )
                self._num_frames += 1
                self._note_size(frame)
                yield frame
                del frame  # while one is held, a decoder of GIF copies what it would write over
        if self._error and not self._num_frames:
            raise self._error

    def oddities(self) -> Iterator[str]:
        """What to warn of, in a few words each."""
        if self._error:
            yield f"{self._num_lost} of its packets could not be decoded: {one_line(self._error)}"
        if self._clock.num_untimed:
            yield f"{self._clock.num_untimed} of its frames have no time later than that of the frame before"
        if self._clock.has_gap:
            yield f"frames are missing in it, as it seems: none for {self._clock.longest:.1f} seconds"
        if len(self._sizes) > 1:
            yield f"its frames change from {self._sizes[0]} to {self._sizes[1]}"
        yield from self._shortfall()

    def _packets(self) -> Iterator[Packet[Any]]:
        """The last one is empty and makes the decoder give what it holds back."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except av.FFmpegError as error:
            self._lose(error)
        except IndexError:  # PyAV trips, at the end, over streams that appeared on the way
            pass
        yield Packet()

    def _lose(self, error: av.FFmpegError) -> None:
        if isinstance(error, MemoryError):  # no fault of the packet, as a rule
            raise error
        self._num_lost += 1
        self._error = self._error or error

    def _note_size(self, frame: av.VideoFrame) -> None:
        size = f"{frame.width}x{frame.height}"
        if size not in self._sizes:
            self._sizes.append(size)

    def _shortfall(self) -> Iterator[str]:
        """Headers lie in both directions, so it is no failure; but a cut-off download looks just so."""
        num_stated = _stated_num_frames(self._container, self._stream) - self._num_hidden
        if num_stated > self._num_frames + MAX_MISSING_FRAMES:
            yield f"only {self._num_frames} of the {num_stated} frames that its header states: truncated?"
            return
        stated = _stated_seconds(self._container, self._stream)
        if stated is None or self._num_frames < 2:
            return
        step = self._clock.passed / (self._num_frames - 1)
        found = self._clock.passed + step
        if stated - found > max((MAX_MISSING_FRAMES + 0.5) * step, 0.05 * stated):
            yield f"ends after {found:.1f} of the {stated:.1f} seconds that its header states: truncated?"


class _Clock:
    """Times since the first frame, in seconds, exact. Those that are missing or do not increase are none.

    passed: the last one. longest: the longest step between two. num_untimed: how many are none.
    """

    def __init__(self, unit: Fraction) -> None:
        self.passed = self.longest = 0.0
        self.num_untimed = 0
        self._num_steps = 0
        self._unit = unit
        self._first: int | None = None
        self._last: int | None = None

    @property
    def has_gap(self) -> bool:
        """Whether one step is longer by far than the others are on average."""
        return self.longest * (self._num_steps - 1) > GAP_STEPS * (self.passed - self.longest) > 0

    def seconds(self, pts: int | None) -> float | None:
        if pts is None or (self._last is not None and pts <= self._last):
            self.num_untimed += 1
            return None
        if self._first is None or self._last is None:
            self._first = self._last = pts
        else:
            self._num_steps += 1
        self.longest = max(self.longest, float((pts - self._last) * self._unit))
        self.passed = float((pts - self._first) * self._unit)
        self._last = pts
        return self.passed


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    with _open(path, _OPTIONS) as container:
        streams = _video_streams(container)
        if not streams:
            raise DecodeError("holds no video stream", "no-video")
        stream = streams[0]
        # Typed as never None, which it is.
        context: VideoCodecContext | None = stream.codec_context
        if context is None:
            raise DecodeError("is coded in a way that FFmpeg does not know", "unknown-codec")
        if not context.width:  # FFmpeg forgets a size beyond max_pixels
            _refuse_stated_giant(path, stream.index)
        # Frame threads would end a truncated file in silence; a worker has no more than a core anyway.
        context.thread_type = ThreadType.SLICE
        context.options = _DECODER_OPTIONS
        yield container, stream


@contextmanager
def _open(path: Path, options: dict[str, str]) -> Iterator[InputContainer]:
    with path.open("rb", buffering=0) as file, _one_kind_of_error():
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        try:
            # Metadata is never used, and real files carry bytes that are no text in it.
            container = av.open(nameless, "r", options=options, metadata_errors="replace")
        except av.error.ArgumentError as error:  # what FFmpeg raises for a format beyond the whitelist
            raise DecodeError("is in none of the video formats that are read", "unsupported") from error
        with container:
            yield container


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """An error of the disk is none of the file's and stays an OSError."""
    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(f"cannot be decoded as video: {one_line(error)}") from error


def _refuse_stated_giant(path: Path, index: int) -> None:
    """Look at the size again, with no decoder that could allocate a frame of it."""
    with _open(path, _OPTIONS | {"codec_whitelist": "none"}) as container:
        context = container.streams[index].codec_context
        if isinstance(context, VideoCodecContext):
            check_frame_size(context.width, context.height)


def _gif_ends(path: Path) -> bool:
    """Whether a GIF, which states no length, has the byte that ends it. Zeros after it are common."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _GIF_TAIL_BYTES))
        return file.read().rstrip(b"\0").endswith(b";")


def _video_streams(container: InputContainer) -> list[VideoStream]:
    return [stream for stream in container.streams.video if not stream.disposition & _PICTURES]


def _stated_num_frames(container: InputContainer, stream: VideoStream) -> int:
    """0 where the header counts none. Of MP4 only the frames that its edit list leaves in the index count."""
    num_indexed = len(stream.index_entries) if "mp4" in container.format.name else 0
    return min(stream.frames, num_indexed or stream.frames)


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(Fraction(stream.duration) * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska's
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        return (hours * 60 + minutes) * 60 + seconds
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return None
