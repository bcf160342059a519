"""Video containers: exact pixels of lossless files, errors and warnings of damaged ones, real clips."""

import csv
import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image, ImageOps

from vidlat.errors import DecodeError
from vidlat.video import container
from vidlat.video.container import GAP_STEPS, MAX_MISSING_FRAMES, is_container, open_container
from vidlat.video.writer import write_video

SHARED = Path(__file__).parents[3] / "shared" / "data"
DERIVED = SHARED / "videos" / "derived"
needs_shared = pytest.mark.skipif(not DERIVED.is_dir(), reason="the project's test videos are not here")

BT601 = np.array([0.299, 0.587, 0.114])


def random_frames(num_frames=7, height=20, width=30, bits=8, channels=()):
    shape = (num_frames, height, width, *channels)
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(0).integers(0, 2**bits, shape, dtype)


def moving_ramps(num_frames=20, height=32, width=64):
    """Different frames that survive lossy codecs nearly unchanged."""
    ramp = np.arange(width) + np.arange(height)[:, None]
    return np.stack([(ramp + 3 * index).astype(np.uint8) for index in range(num_frames)])


def write_lossless(
    path, frames, codec="ffv1", pix_fmt="gray", fps=25, aspect=None, options=None, title="", **tags
):
    """Write frames unchanged with PyAV alone, without code of the project.

    frames: arrays as PyAV expects them for the pixel format. tags: attributes of stream and frames.
    """
    frame = av.VideoFrame.from_ndarray(frames[0], format=pix_fmt)
    with av.open(str(path), "w") as file:
        file.metadata["title"] = title
        stream = file.add_stream(codec, rate=fps, options=options or {})
        stream.pix_fmt, stream.height, stream.width = pix_fmt, frame.height, frame.width
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format=pix_fmt)
            frame.pts, frame.time_base = index, 1 / Fraction(fps)
            for name, value in tags.items():
                setattr(frame, name, value)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_lossy(path, grays, codec="libx264", pix_fmt="yuv420p", fps=25, options=None):
    frames = [
        av.VideoFrame.from_ndarray(gray, format="gray").reformat(format=pix_fmt).to_ndarray()
        for gray in grays
    ]
    return write_lossless(path, frames, codec, pix_fmt, fps, options=options)


def read(path):
    """The frames of a file and its warnings."""
    warnings = []
    frames = list(open_container(path, warnings.append).frames())
    return frames, warnings


def pixels_of(path):
    return np.stack([frame.pixels for frame in read(path)[0]])


def times_of(path):
    return [frame.pts_seconds for frame in read(path)[0]]


def frames_and_kind(path, warn=lambda _: None):
    """The pixels and, where an error ends them, its kind."""
    got = []
    try:
        for frame in open_container(path, warn).frames():
            got.append(frame.pixels)
    except DecodeError as error:
        return got, error.kind
    return got, None


# Pixels


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "ffv1"), ("a.avi", "rawvideo"), ("a.nut", "rawvideo"), ("a.mov", "png")]
)
def test_lossless_gray_comes_back_exactly(tmp_path, name, codec):
    frames = random_frames()
    got = pixels_of(write_lossless(tmp_path / name, frames, codec))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, frames)


def test_sixteen_bits_come_back_exactly(tmp_path):
    frames = random_frames(bits=16)
    got = pixels_of(write_lossless(tmp_path / "a.mkv", frames, pix_fmt="gray16le"))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, frames)


@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_gray_fills_the_range_of_its_type_whatever_its_tag_says(tmp_path, bits, color_range):
    """FFmpeg leaves the limited-range tag of the source on full-range gray."""
    values = np.linspace(0, 2**bits - 1, 30 * 20).astype(np.uint8 if bits == 8 else np.uint16)
    pix_fmt = "gray" if bits == 8 else f"gray{bits}le"
    path = write_lossless(
        tmp_path / "a.mkv", values.reshape(1, 20, 30), pix_fmt=pix_fmt, color_range=color_range
    )
    got = pixels_of(path).ravel()
    most = np.iinfo(got.dtype).max
    assert (got[0], got[-1]) == (0, most)
    assert np.abs(got - values * (most / (2**bits - 1))).max() <= (0 if bits == 8 else 1)


@pytest.mark.parametrize("colorspace", [1, 5])  # BT.709, BT.601
@pytest.mark.parametrize(
    ("pix_fmt", "bits", "color_range"),
    [("yuv444p", 8, 0), ("yuv444p", 8, 1), ("yuv444p", 8, 2), ("yuv444p16le", 16, 1), ("yuv444p16le", 16, 2)],
)
def test_luma_is_the_codecs_y_expanded_from_limited_range(tmp_path, pix_fmt, bits, color_range, colorspace):
    yuv = random_frames(2, bits=bits, channels=(3,))
    planes = np.moveaxis(yuv, -1, 1) if bits == 8 else yuv
    path = write_lossless(
        tmp_path / "a.mkv", planes, pix_fmt=pix_fmt, color_range=color_range, colorspace=colorspace
    )
    got = pixels_of(path)
    most, shift = 2**bits - 1, bits - 8
    expected = yuv[..., 0].astype(float)
    if color_range != 2:
        expected = np.clip((expected - (16 << shift)) * (most / (219 << shift)), 0, most)
    assert np.abs(got - expected).max() <= (0.5 if bits == 8 else 3)


def test_ten_bits_of_limited_range_fill_sixteen(tmp_path):
    luma = np.arange(64, 64 + 30 * 20).reshape(20, 30)
    luma[-1, -1] = 940
    frame = np.vstack([luma, np.full((10, 30), 512)]).astype(np.uint16)
    got = pixels_of(write_lossless(tmp_path / "a.mkv", [frame], pix_fmt="yuv420p10le"))[0]
    assert got.dtype == np.uint16
    assert (got[0, 0], got[-1, -1]) == (0, 65535)
    assert np.abs(got - (luma - 64) * 65535 / (940 - 64)).max() <= 1


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "bits"),
    [("a.avi", "rawvideo", "bgr24", 8), ("a.mov", "png", "rgb24", 8), ("a.mov", "qtrle", "rgb24", 8),
     ("a.mkv", "libx264rgb", "rgb24", 8), ("a.mkv", "ffv1", "gbrp10le", 10),
     ("a.mkv", "ffv1", "gbrp16le", 16), ("a.mov", "png", "rgb48be", 16)],
)  # fmt: skip
def test_rgb_codecs_become_bt601_luma_within_one_level(tmp_path, name, codec, pix_fmt, bits):
    rgb = random_frames(2, 16, 32, bits, channels=(3,))
    frames = rgb[..., ::-1] if pix_fmt.startswith("bgr") else rgb
    path = write_lossless(
        tmp_path / name, np.ascontiguousarray(frames), codec, pix_fmt, options={"qp": "0"}
    )  # with qp 0, H.264 is lossless
    got = pixels_of(path)
    full = np.iinfo(got.dtype).max
    assert got.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert np.abs(got - rgb @ BT601 * (full / (2**bits - 1))).max() <= (1 if bits == 8 else 1.5)


def raw_avi(indices, palette, chunks=None):
    """An AVI of eight bits with a palette, as Windows and MATLAB write them: rows from the bottom up."""
    height, width = indices.shape[1:]
    rows = np.pad(indices[:, ::-1], ((0, 0), (0, 0), (0, -width % 4)))
    chunks = [frame.tobytes() for frame in rows] if chunks is None else chunks
    colours = b"".join(struct.pack("4B", blue, green, red, 0) for red, green, blue in palette)
    main = struct.pack("<14I", 40_000, 0, 0, 0, len(chunks), 0, 1, 0, width, height, 0, 0, 0, 0)
    header = struct.pack(
        "<4s4sIHH8I4H", b"vids", b"DIB ", 0, 0, 0, 0, 1, 25, 0, len(chunks), 0, 0, 0, 0, 0, 0, 0
    )
    bitmap = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, len(palette), 0) + colours

    def chunk(name, data):
        return name + struct.pack("<I", len(data)) + data

    stream = chunk(b"LIST", b"strl" + chunk(b"strh", header) + chunk(b"strf", bitmap))
    headers = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + stream)
    movie = chunk(b"LIST", b"movi" + b"".join(chunk(b"00db", data) for data in chunks))
    return chunk(b"RIFF", b"AVI " + headers + movie)


def test_palette_of_grays_comes_back_exactly(tmp_path):
    frames = random_frames()
    (tmp_path / "a.avi").write_bytes(raw_avi(frames, [(level,) * 3 for level in range(256)]))
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.avi"), frames)


def test_eight_bits_without_a_palette_are_gray_levels_and_told(tmp_path):
    frames = random_frames()
    (tmp_path / "a.avi").write_bytes(raw_avi(frames, []))
    got, warnings = read(tmp_path / "a.avi")
    np.testing.assert_array_equal([frame.pixels for frame in got], frames)
    assert warnings == ["declares no palette: its 8 bits are taken for gray levels"]


@pytest.mark.parametrize("level", [0, 77])
def test_a_palette_of_one_colour_is_that_colour(tmp_path, level):
    (tmp_path / "a.avi").write_bytes(raw_avi(random_frames(), [(level,) * 3] * 256))
    frames, warnings = read(tmp_path / "a.avi")
    assert {value for frame in frames for value in np.unique(frame.pixels)} == {level}
    assert warnings == []


def test_palette_of_colours_becomes_luma(tmp_path):
    frames, palette = random_frames(), np.random.default_rng(1).integers(0, 256, (256, 3))
    (tmp_path / "a.avi").write_bytes(raw_avi(frames, palette.tolist()))
    assert np.abs(pixels_of(tmp_path / "a.avi") - (palette @ BT601)[frames]).max() <= 0.5


def test_alpha_is_ignored(tmp_path):
    rgba = random_frames(2, 16, 32, channels=(4,))
    got = pixels_of(write_lossless(tmp_path / "a.mov", rgba, "png", "rgba"))
    assert np.abs(got - rgba[..., :3] @ BT601).max() <= 1


def test_undrawn_areas_of_a_gif_are_black(tmp_path):
    """FFmpeg's default is white, which would surround a scan with white."""
    picture = Image.fromarray(np.full((20, 30), 1, np.uint8), "P")
    picture.putpalette([255, 255, 255, 90, 90, 90])
    picture.paste(0, (0, 0, 10, 20))
    picture.save(tmp_path / "a.gif", transparency=0)
    got = pixels_of(tmp_path / "a.gif")[0]
    assert np.unique(got[:, :10]) == 0
    assert np.unique(got[:, 10:]) == 90


def test_more_than_sixteen_bits_are_refused(tmp_path):
    """FFmpeg's converter aborts the process on some of them."""
    frames = np.zeros((2, 16, 16, 3), np.float32)
    path = write_lossless(tmp_path / "a.mkv", frames, pix_fmt="gbrpf32le", options={"strict": "-2"})
    with pytest.raises(DecodeError, match="32 bits") as error:
        read(path)
    assert error.value.kind == "unsupported"


@pytest.mark.parametrize(("pix_fmt", "most"), [("gray", 255), ("gray10le", 65535), ("gray16le", 65535)])
def test_range_matches_the_pixels_before_and_after_reading(tmp_path, pix_fmt, most):
    bits = {"gray": 8, "gray10le": 10, "gray16le": 16}[pix_fmt]
    path = write_lossless(tmp_path / "a.mkv", random_frames(bits=bits), pix_fmt=pix_fmt)
    video = open_container(path, print)
    assert video.auto_range() == (0, most)
    video = open_container(path, print)
    frame = next(video.frames())
    path.unlink()  # the range is known from the frame: the file is not opened again
    assert video.auto_range() == (0, np.iinfo(frame.pixels.dtype).max) == (0, most)


def test_frames_can_be_read_repeatedly_and_are_read_lazily(tmp_path):
    video = open_container(tmp_path / "a.mkv", print)
    write_lossless(tmp_path / "a.mkv", random_frames())
    first, second = ([frame.pixels for frame in video.frames()] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@needs_shared
@pytest.mark.parametrize(
    ("name", "most", "mean"),
    [
        ("ref_ffv1_gray.mkv", 0, 0),
        ("ref_h264_limited.mp4", 4, 0.25),
        ("ref_h264_full.mp4", 4, 0.25),
        ("ref_h264_gray_full.mp4", 4, 0.25),
        ("ref_prores.mov", 4, 0.25),
        ("ref_mjpeg_full.avi", 6, 0.7),
        ("ref_hevc10.mp4", 11, 1),
        ("ref_vp9.webm", 11, 1),
    ],
)
def test_real_codecs_give_the_known_pixels(name, most, mean):
    expected = np.load(DERIVED / "ref_gray.npy")
    got = pixels_of(DERIVED / name)
    scale = 257 if got.dtype == np.uint16 else 1
    difference = np.abs(got / scale - expected)
    assert got.shape == expected.shape
    assert difference.max() <= most
    assert difference.mean() <= mean


@needs_shared
def test_real_sixteen_bit_video_gives_the_known_pixels():
    expected = np.load(DERIVED / "ref_gray.npy").astype(np.uint16) * 257
    np.testing.assert_array_equal(pixels_of(DERIVED / "ref_ffv1_gray16.mkv"), expected)


@needs_shared
@pytest.mark.slow
def test_every_real_clip_has_the_frames_of_its_manifest_and_no_warning():
    with (SHARED / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("videos/")]
    counted = {row["path"]: int(row["n_frames"]) for row in rows if not row["path"].endswith(".npy")}
    assert len(counted) > 40
    clips = {path: read(SHARED / path) for path in counted}
    assert {path: len(frames) for path, (frames, _) in clips.items()} == counted
    assert not any(warnings for _, warnings in clips.values())
    times = [[frame.pts_seconds for frame in frames] for frames, _ in clips.values()]
    assert all(before < after for clip in times for before, after in pairwise(clip))


@needs_shared
def test_avi_that_is_an_mp4_is_read():
    misnamed = [
        p for p in (SHARED / "videos" / "northumbria").glob("*.avi") if p.read_bytes()[4:8] == b"ftyp"
    ]
    assert len(misnamed) == 3
    assert all(next(open_container(path, print).frames()).pixels.size for path in misnamed)


@needs_shared
def test_real_clips_report_non_square_pixels():
    paths = (SHARED / "videos" / "stemlyns").glob("*.mp4")
    assert [next(open_container(path, print).frames()).sample_aspect_ratio for path in paths] == [9 / 8] * 2


# Orientation

# a, b, c, d of the 3 x 3 matrix of an MP4's track header, which shows the point (x, y) at (ax + cy, bx + dy).
# The oracle is Pillow's reading of the EXIF orientations, which are the same eight.
MATRICES = {
    1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
    5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
}  # fmt: skip


def write_matrix(path, orientation):
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    assert struct.unpack(">9i", data[matrix : matrix + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 for value in MATRICES[orientation])
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def jpeg(pixels, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", exif=exif, quality=95)
    return data.getvalue()


def turned(pixels, orientation):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg(pixels, orientation)))))


@pytest.mark.parametrize("orientation", MATRICES)
def test_display_matrix_is_applied(tmp_path, orientation):
    ramp = moving_ramps(1)[0]
    path = write_lossless(tmp_path / "a.mp4", [ramp, ramp], "png")
    write_matrix(path, orientation)
    got = pixels_of(path)
    expected = turned(ramp, orientation)
    assert got[0].shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 8
    assert got[0].flags.c_contiguous


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_jpegs_with_exif_orientation_are_rotated(tmp_path, orientation):
    """PyAV fails on side data of types that it does not name, such as EXIF."""
    ramp = moving_ramps(1)[0]
    with av.open(str(tmp_path / "a.avi"), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.pix_fmt, stream.height, stream.width = "yuvj420p", *ramp.shape
        file.start_encoding()
        packet = av.Packet(jpeg(ramp, orientation))
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
        file.mux(packet)
    got = pixels_of(tmp_path / "a.avi")[0]
    expected = turned(ramp, orientation)
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("orientation", "expected"), [(1, 9 / 8), (6, 8 / 9), (3, 9 / 8), (5, 8 / 9)])
def test_sample_aspect_ratio_is_reported_and_rotates_with_the_frame(tmp_path, orientation, expected):
    path = write_lossless(tmp_path / "a.mp4", random_frames(2, 32, 48), "png", aspect=Fraction(9, 8))
    write_matrix(path, orientation)
    assert read(path)[0][0].sample_aspect_ratio == pytest.approx(expected)


# Times


def write_timed(path, times, codec="ffv1", unit=Fraction(1, 1000)):
    """A frame at each time."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.pix_fmt, stream.height, stream.width = "gray", 16, 16
        stream.time_base = stream.codec_context.time_base = unit
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16), np.uint8), format="gray")
            frame.pts, frame.time_base = time, unit
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def test_times_count_from_the_first_frame_and_are_exact(tmp_path):
    times = [500, 533, 540, 700, 701]
    path = write_timed(tmp_path / "a.mkv", times)
    assert times_of(path) == [(time - 500) / 1000 for time in times]


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4", "a.ts", "a.flv"])
def test_reordered_frames_have_increasing_times(tmp_path, name):
    """AVI has no presentation times, and those that FFmpeg derives jump back and forth."""
    path = write_lossy(tmp_path / name, moving_ramps(30), options={"bf": "3", "b_strategy": "0"})
    frames, warnings = read(path)
    assert warnings == []
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(30) / 25, abs=0.002)
    errors = [
        np.abs(frame.pixels.astype(int) - gray) for frame, gray in zip(frames, moving_ramps(30), strict=True)
    ]
    assert np.median(errors) <= 3


@pytest.mark.parametrize("milliseconds", [80, 30])
def test_non_increasing_times_are_none_with_a_warning(tmp_path, milliseconds):
    path = write_lossy(tmp_path / "a.flv", moving_ramps(6), "flv")
    data = bytearray(path.read_bytes())
    at = 13
    for _ in range(4):  # a tag: its type, 9 for video; the size of its data; its time
        while data[at] != 9:
            at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
        time_at, at = at + 4, at + 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    assert int.from_bytes(data[time_at : time_at + 3], "big") == 120
    data[time_at : time_at + 3] = milliseconds.to_bytes(3, "big")
    path.write_bytes(data)
    frames, warnings = read(path)
    assert [frame.pts_seconds for frame in frames] == [0, 0.04, 0.08, None, 0.16, 0.2]
    assert warnings == ["1 frames have no time, or none after the previous frame's"]


def test_a_skipped_frame_of_an_avi_leaves_the_other_times_unchanged(tmp_path):
    path = write_lossy(tmp_path / "a.avi", moving_ramps(12), "mpeg4")
    at, size = packets_of(path)[4]
    data = bytearray(path.read_bytes())
    # A P-VOP at 4/25 seconds marked as not coded: it decodes to nothing.
    data[at : at + size] = b"\0\0\1\xb6\x52\x4f" + bytes(size - 6)
    path.write_bytes(data)
    assert [round(seconds * 25) for seconds in times_of(path)] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]


def packets_of(path):
    """Position and size of each packet in a file."""
    with av.open(str(path)) as file:
        return [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_a_long_gap_between_frames_is_warned_of(tmp_path, name):
    def warnings_of(gap):
        times = np.arange(0, 800, 40)
        times[10:] += gap - 40
        codec = "ffv1" if name == "a.mkv" else "png"
        return read(write_timed(tmp_path / name, times.tolist(), codec))[1]

    assert warnings_of(40 * GAP_STEPS - 10) == []
    assert warnings_of(40 * GAP_STEPS + 10) == ["frames are probably missing: a gap of 0.4 seconds"]


# Streams


def write_streams(path, grays, dispositions=(0,), codec="png"):
    """One stream of two frames per gray and disposition, in this order."""
    with av.open(str(path), "w") as file:
        streams = []
        for disposition in dispositions:
            stream = file.add_stream(codec, rate=25)
            stream.pix_fmt, stream.height, stream.width = "gray", 16, 16
            stream.disposition = disposition
            streams.append(stream)
        for stream, gray in zip(streams, grays, strict=True):
            for index in range(1 if stream.disposition else 2):
                frame = av.VideoFrame.from_ndarray(np.full((16, 16), gray, np.uint8), format="gray")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
    return path


def write_sound(path, codec="aac"):
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def test_first_of_several_video_streams_is_read_with_a_warning(tmp_path):
    frames, warnings = read(write_streams(tmp_path / "a.mov", [10, 20], [0, 0]))
    assert [frame.pixels[0, 0] for frame in frames] == [10, 10]
    assert warnings == ["holds 2 video streams: only the first is read"]


COVER = Disposition.attached_pic


def test_cover_picture_is_no_video(tmp_path):
    frames, warnings = read(write_streams(tmp_path / "a.mp4", [10, 20], [COVER, 0]))
    assert [frame.pixels[0, 0] for frame in frames] == [20, 20]
    assert warnings == []


def test_song_with_a_cover_picture_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        sound, cover = file.add_stream("aac", rate=44100), file.add_stream("png", rate=25)
        cover.pix_fmt, cover.height, cover.width, cover.disposition = "gray", 16, 16, COVER
        picture = av.VideoFrame.from_ndarray(np.full((16, 16), 9, np.uint8), format="gray")
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        file.mux(cover.encode(picture))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 44100, 0
        file.mux(sound.encode(silence))
        file.mux(sound.encode())
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert len(file.streams.video) == 1
    with pytest.raises(DecodeError) as error:
        read(tmp_path / "a.mp4")
    assert error.value.kind == "no-video"


def test_frames_of_changing_size_are_yielded_unchanged_with_one_warning(tmp_path):
    parts = []
    for height, width in [(32, 64), (48, 96), (32, 64)]:
        path = write_lossy(tmp_path / f"{len(parts)}.ts", moving_ramps(8, height, width))
        parts.append(path.read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    frames, warnings = read(tmp_path / "a.ts")
    assert [frame.pixels.shape for frame in frames] == [(32, 64)] * 8 + [(48, 96)] * 8 + [(32, 64)] * 8
    assert [text for text in warnings if "change" in text] == ["the frame size changes from 64x32 to 96x48"]


def test_frames_of_changing_bit_depth_keep_the_dtype_of_the_first(tmp_path):
    ramps = moving_ramps(4)
    deep = [np.vstack([ramp.astype(np.uint16) * 4, np.full((16, 64), 512, np.uint16)]) for ramp in ramps]
    eight = write_lossy(tmp_path / "8.ts", ramps).read_bytes()
    ten = write_lossless(tmp_path / "10.ts", deep, "libx264", "yuv420p10le").read_bytes()
    (tmp_path / "a.ts").write_bytes(eight + ten)
    video = open_container(tmp_path / "a.ts", print)
    assert [frame.pixels.dtype for frame in video.frames()] == [np.uint8] * 8
    assert video.auto_range() == (0, 255)


def test_frames_hidden_by_an_edit_list_are_neither_yielded_nor_missed(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"bf": "0", "g": "5"})
        stream.pix_fmt, stream.height, stream.width = "yuv420p", 32, 64
        for index in range(20):
            gray = np.full((32, 64), 10 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for packet in stream.encode(frame) + (stream.encode() if index == 19 else []):
                packet.pts, packet.dts = packet.pts - 8, packet.dts - 8
                file.mux(packet)
    frames, warnings = read(tmp_path / "a.mp4")
    assert [frame.pixels[9, 9] for frame in frames] == pytest.approx(np.arange(80, 200, 10), abs=2)
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(12) / 25)
    assert warnings == []


# Damage


@pytest.mark.parametrize("counted", [0, 5, 20, 22])
def test_a_header_with_slightly_too_many_or_too_few_frames_is_harmless(tmp_path, counted):
    frames, warnings = read(miscounting_avi(tmp_path / "a.avi", counted))
    assert len(frames) == 20
    assert warnings == []


def test_a_header_with_far_too_many_frames_is_warned_of(tmp_path):
    frames, warnings = read(miscounting_avi(tmp_path / "a.avi", 9999))
    assert len(frames) == 20
    assert warnings == ["only 20 of the 9999 frames that its header declares: truncated?"]


def miscounting_avi(path, counted):
    data = bytearray(raw_avi(random_frames(20), [(level,) * 3 for level in range(256)]))
    for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        assert int.from_bytes(data[at : at + 4], "little") == 20
        data[at : at + 4] = struct.pack("<I", counted)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("num_last", [0, 1, 5])
@pytest.mark.parametrize("has_index", [False, True])
def test_empty_chunks_of_an_avi_repeat_the_frame_before(tmp_path, has_index, num_last):
    frames = random_frames(3, 20, 32)
    shown = [0, None, None, None, None, 1, 2, None, 0, *[None] * num_last]  # None: an empty chunk
    chunks = [b"" if index is None else frames[index, ::-1].tobytes() for index in shown]
    data = raw_avi(frames, [(level,) * 3 for level in range(256)], chunks)
    if has_index:
        at, entries = 4, b""
        for chunk in chunks:
            entries += struct.pack("<4sIII", b"00db", 0x10, at, len(chunk))
            at += 8 + len(chunk)
        data += b"idx1" + struct.pack("<I", len(entries)) + entries
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    (tmp_path / "a.avi").write_bytes(data)
    got, warnings = read(tmp_path / "a.avi")
    np.testing.assert_array_equal(
        [frame.pixels for frame in got], frames[[0, 0, 0, 0, 0, 1, 2, 2, 0, *[0] * num_last]]
    )
    assert [frame.pts_seconds for frame in got] == pytest.approx(np.arange(9 + num_last) / 25)
    assert warnings == []


def test_a_cut_in_the_empty_chunks_at_the_end_leaves_those_before_it(tmp_path):
    frames = random_frames(3, 20, 32)
    chunks = [*(frame[::-1].tobytes() for frame in frames), *[b""] * 9]
    data = raw_avi(frames, [(level,) * 3 for level in range(256)], chunks)
    (tmp_path / "a.avi").write_bytes(data[: -4 * 8 - 3])
    got, warnings = read(tmp_path / "a.avi")
    np.testing.assert_array_equal([frame.pixels for frame in got], frames[[0, 1, *[2] * 5]])
    assert warnings == ["only 7 of the 12 frames that its header declares: truncated?"]


def test_a_chunk_that_is_no_frame_is_not_repeated_but_reported(tmp_path):
    frames = random_frames(6, 20, 32)
    chunks = [frame[::-1].tobytes() for frame in frames]
    chunks[3] = b"broken"
    (tmp_path / "a.avi").write_bytes(raw_avi(frames, [(level,) * 3 for level in range(256)], chunks))
    got, warnings = read(tmp_path / "a.avi")
    np.testing.assert_array_equal([frame.pixels for frame in got], frames[[0, 1, 2, 4, 5]])
    assert [round(frame.pts_seconds * 25) for frame in got] == [0, 1, 2, 4, 5]
    assert "1 packets could not be decoded" in warnings[0]


def test_empty_chunks_among_reordered_frames_repeat_the_frame_shown_before(tmp_path):
    """An empty chunk before each fourth packet of an AVI with B-frames."""
    path = write_lossy(tmp_path / "a.avi", moving_ramps(12), "mpeg4", options={"bf": "2"})
    plain = pixels_of(path)
    data, numbers = bytearray(path.read_bytes()), iter(range(99))
    start, end = data.index(b"movi") - 8, data.index(b"idx1")
    at, movie = start + 12, b"movi"
    while at < end:
        length = 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        length += length % 2
        if data[at : at + 2] == b"00" and next(numbers) in (4, 8):
            movie += data[at : at + 4] + bytes(4)
        movie += data[at : at + length]
        at += length
    whole = data[:start] + b"LIST" + struct.pack("<I", len(movie)) + movie
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    got, _ = read(path)
    expected = [0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal([frame.pixels for frame in got], plain[expected])
    assert [frame.pts_seconds for frame in got] == pytest.approx(np.arange(14) / 25)


def test_a_file_without_decodable_frames_fails_with_the_reason(tmp_path):
    path = write_lossless(tmp_path / "a.mkv", random_frames())
    data = path.read_bytes()
    blocks = data.index(b"\x1f\x43\xb6\x75")  # the first cluster
    path.write_bytes(data[: blocks + 40] + bytes(len(data) - blocks - 40))
    with pytest.raises(DecodeError, match="cannot be decoded as video: ") as error:
        read(path)
    assert error.value.kind == "unreadable"


def test_undecodable_packets_are_skipped_and_counted(tmp_path):
    """The other frames are exact and keep their times."""
    frames = random_frames(20, 64, 64)
    path = write_lossless(tmp_path / "a.mov", frames, "png")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(b"\x89PNG", at)]
    for index in (5, 12):
        data[starts[index] : starts[index] + 4] = b"oops"
    path.write_bytes(data)
    got, warnings = read(path)
    left = [index for index in range(20) if index not in (5, 12)]
    np.testing.assert_array_equal([frame.pixels for frame in got], frames[left])
    assert [frame.pts_seconds for frame in got] == [index / 25 for index in left]
    assert warnings == ["2 packets could not be decoded: Invalid data found when processing input"]


def lose(path, index):
    """Overwrite a packet of H.264 except for its length prefix."""
    data = bytearray(path.read_bytes())
    at, size = packets_of(path)[index]
    data[at + 4 : at + size] = bytes(size - 4)
    path.write_bytes(data)


def test_frames_after_a_lost_packet_are_damaged_until_a_key_frame(tmp_path):
    options = {"g": "10", "bf": "0", "sc_threshold": "0"}
    path = write_lossy(tmp_path / "a.mp4", moving_ramps(30), options=options)
    lose(path, 14)
    frames, warnings = read(path)
    assert warnings == ["1 packets could not be decoded: Invalid data found when processing input"]
    assert [round(frame.pts_seconds * 25) for frame in frames if frame.is_damaged] == [15, 16, 17, 18, 19]
    assert len(frames) == 29


def test_delayed_frames_are_yielded_although_the_last_packet_is_lost(tmp_path):
    options = {"bf": "3", "b_strategy": "0"}
    path = write_lossy(tmp_path / "a.mp4", moving_ramps(30), options=options)
    lose(path, -1)
    assert len(read(path)[0]) == 29


def test_a_frame_with_concealed_errors_is_damaged(tmp_path):
    path = write_lossy(tmp_path / "a.mp4", random_frames(10, 64, 64), options={"bf": "0", "g": "100"})
    data = bytearray(path.read_bytes())
    at, size = packets_of(path)[4]
    for position in range(at + size // 2, at + size // 2 + 40):
        data[position] ^= 0xFF
    path.write_bytes(data)
    frames, _ = read(path)
    assert [index for index, frame in enumerate(frames) if frame.is_damaged] == [4]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.ivf", "libvpx"), ("a.avi", "mpeg4"), ("a.avi", "mpeg2video"), ("a.flv", "flv")]
)
def test_the_frame_of_a_truncated_packet_is_damaged(tmp_path, name, codec):
    path = write_lossy(tmp_path / name, random_frames(10, 64, 64), codec)
    at, size = packets_of(path)[-1]
    path.write_bytes(path.read_bytes()[: (at or 0) + size * 2 // 3])
    frames, _ = read(path)
    assert [index for index, frame in enumerate(frames) if frame.is_damaged] == [9]


def test_a_packet_of_absurd_size_is_a_failure(tmp_path):
    """It looks like a lack of memory; skipping the packet would keep a shorter video for good."""
    path = write_lossy(tmp_path / "a.mp4", random_frames(10, 64, 64))
    sizes = b"".join(struct.pack(">I", size) for _, size in packets_of(path))
    data = path.read_bytes()
    assert data.count(sizes) == 1
    path.write_bytes(data.replace(sizes, sizes[:20] + b"\x3f\xff\xff\xff" + sizes[24:]))
    with pytest.raises(DecodeError, match="memory"):
        read(path)


def test_frames_before_a_read_error_are_yielded(tmp_path):
    """Delayed frames too; PyAV itself fails where streams appear during a file."""
    path = write_lossy(tmp_path / "a.mp4", moving_ramps(30), options={"bf": "3", "b_strategy": "0"})
    for error, num_lost in ((IndexError(), 0), (av.InvalidDataError(1, "broken"), 1)):
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            decoding = container._Decoding(Failing(file, error), stream, path.open)
            assert sum(1 for _ in decoding.frames()) == 30
            assert [text for text in decoding.warnings() if "broken" in text] == [
                "1 packets could not be decoded: broken"
            ][:num_lost]


class Failing:
    """A container that fails where it should end."""

    def __init__(self, real, error):
        self._real, self._error = real, error

    def __getattr__(self, name):
        return getattr(self._real, name)

    def demux(self, stream):
        yield from (packet for packet in self._real.demux(stream) if packet.size)
        raise self._error


def test_invalid_text_in_metadata_is_ignored(tmp_path):
    path = write_lossless(tmp_path / "a.mkv", random_frames(), title="a title of no use")
    path.write_bytes(path.read_bytes().replace(b"a title", b"\xff\xfe\xfdtle"))
    np.testing.assert_array_equal(pixels_of(path), random_frames())


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_file_gives_whole_frames_from_its_start_or_a_reason(tmp_path, name, share):
    """libav hides the truncation of some containers: frames must be exact, and a warning must follow."""
    frames = random_frames(20, 64, 64)
    codec = {"a.mkv": "ffv1", "a.avi": "rawvideo", "a.mp4": "png"}[name]
    path = write_lossless(tmp_path / name, frames, codec)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    warnings = []
    got, kind = frames_and_kind(path, warnings.append)
    assert kind in (None, "unreadable")
    assert kind or len(got) >= len(frames) - MAX_MISSING_FRAMES or "truncated?" in warnings[-1]
    assert len(got) < len(frames)
    assert all((pixels == true).all() for pixels, true in zip(got, frames, strict=False))


def write_with_sound(path, codec, pix_fmt, sound_seconds):
    """Twenty frames at 25 per second, with a silent sound track."""
    with av.open(str(path), "w") as file:
        stream, sound = file.add_stream(codec, rate=25), file.add_stream("aac", rate=44100)
        stream.pix_fmt, stream.height, stream.width = pix_fmt, 64, 64
        for index, pixels in enumerate(random_frames(20, 64, 64)):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        for start in range(0, sound_seconds * 44100, 1024):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate, silence.pts = 44100, start
            file.mux(sound.encode(silence))
        file.mux(sound.encode())
    return path


def test_a_truncated_matroska_with_sound_is_warned_of(tmp_path):
    """The header has no frame count; a tag declares the duration of each stream."""
    path = write_with_sound(tmp_path / "a.mkv", "ffv1", "gray", 8)
    assert read(path)[1] == []
    path.write_bytes(path.read_bytes()[:40_000])
    frames, (warning,) = read(path)
    assert 5 < len(frames) < 15
    assert (
        warning
        == f"ends after {len(frames) / 25:.1f} of the 0.8 seconds that its header declares: truncated?"
    )


def test_sound_longer_than_the_frames_is_harmless(tmp_path):
    frames, warnings = read(write_with_sound(tmp_path / "a.flv", "flv", "yuv420p", 8))
    assert len(frames) == 20
    assert warnings == []


def test_complete_files_give_no_warning(tmp_path):
    for name, codec in (("a.mkv", "ffv1"), ("a.avi", "rawvideo"), ("a.mp4", "png")):
        path = write_lossless(tmp_path / name, random_frames(20, 64, 64), codec)
        frames, warnings = read(path)
        assert len(frames) == 20
        assert warnings == []


def test_flipped_bytes_give_frames_or_a_decode_error(tmp_path):
    write_video(tmp_path / "a.mp4", random_frames(12, 64, 64), 25)
    whole = (tmp_path / "a.mp4").read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(30):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), 10):
            damaged[position] ^= 0xFF
        (tmp_path / "b.mp4").write_bytes(damaged)
        got, kind = frames_and_kind(tmp_path / "b.mp4")
        assert kind in (None, "unreadable", "no-video", "too-large", "unknown-codec")
        assert got or kind


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "unreadable", "Invalid data"),
        (lambda path: path.write_text("no video\n" * 100), "unreadable", "Invalid data"),
        (
            lambda path: path.write_text("1\n00:00:01,000 --> 00:00:02,000\nhi\n\n"),
            "unsupported",
            "not a supported video format",
        ),
        (write_sound, "no-video", "holds no video stream"),
        (lambda path: write_lossless(path, random_frames()[:1], "png"), None, ""),
    ],
    ids=["garbage", "text", "subtitles", "sound", "one frame"],
)
def test_files_without_frames_are_refused_with_the_reason(tmp_path, make, kind, reason):
    path = tmp_path / "a.mp4"
    make(path)
    if kind is None:
        assert len(read(path)[0]) == 1
        return
    with pytest.raises(DecodeError, match=reason) as error:
        read(path)
    assert error.value.kind == kind
    assert "\n" not in str(error.value)


def test_an_unknown_codec_is_given_as_the_reason(tmp_path):
    path = write_lossless(tmp_path / "a.mp4", random_frames(2, 32, 48), "png")
    # The name of the codec, and its number in the descriptor (0x6D is PNG).
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"zzzz").replace(b"\x6d\x11", b"\xfe\x11"))
    with pytest.raises(DecodeError, match="does not know") as error:
        read(path)
    assert error.value.kind == "unknown-codec"


class DyingDisk(type(Path())):
    """A path to a file whose second half the disk fails to read."""

    def open(self, *arguments, **options):
        with super().open(*arguments, **options) as whole:
            file = io.BytesIO(whole.read())
        half = len(file.getvalue()) // 2

        class Half(io.RawIOBase):
            seek, tell = file.seek, file.tell

            def read(self, size):
                if file.tell() + size > half:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return file.read(size)

        return Half()


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "rawvideo"), ("a.mkv", "ffv1"), ("a.mov", "png")])
def test_a_disk_error_is_not_taken_for_the_end_of_the_file(tmp_path, name, codec):
    """FFmpeg does so, which would keep a shorter video for good."""
    path = DyingDisk(write_lossless(tmp_path / name, random_frames(60, 64, 64), codec))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read(path)


def test_frames_come_one_at_a_time(tmp_path):
    path = write_lossless(tmp_path / "a.mkv", random_frames(40))
    frames = open_container(path, print).frames()
    next(frames)
    path.write_bytes(b"")  # libav has read ahead; that must not matter to a caller that stops here
    frames.close()


# Refused files, and files that are never opened


def gif(width, height):
    """A GIF of one frame in a few bytes, whatever the frame size."""
    screen = struct.pack("<HH", width, height)
    return b"GIF89a" + screen + b"\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0" + screen + b"\0\2\2\x4c\1\0\x3b"


def giant_png(width, height):
    """A small, complete PNG of zeros."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    parts = [(b"IHDR", struct.pack(">II5B", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def mov_of(path, pictures, width, height):
    """A MOV of PNGs whose header declares one size, whatever that of its pictures."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("png", rate=25)
        stream.pix_fmt, stream.width, stream.height = "gray", width, height
        file.start_encoding()
        for index, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            file.mux(packet)
    return path


def test_a_frame_larger_than_declared_is_not_decoded(tmp_path):
    pictures = [giant_png(32, 32), giant_png(9_000, 7_200), giant_png(32, 32)]
    frames, warnings = read(mov_of(tmp_path / "a.mov", pictures, 32, 32))
    assert [frame.pixels.shape for frame in frames] == [(32, 32), (32, 32)]
    assert warnings[0].startswith("1 packets could not be decoded")


def giant_mov(path, width, height):
    mov_of(path, [giant_png(width, height)], width, height)


PEAK_MEMORY = """
import gc, re, sys
from pathlib import Path
from vidlat.errors import DecodeError
from vidlat.video.container import open_container
def peak():  # getrusage would include the parent
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
gc.disable()
before = peak()
try:
    said = sum(1 for _ in open_container(Path(sys.argv[1]), print).frames())
except DecodeError as error:
    said = f"{error.kind} {error}"
print((peak() - before) // 1024, said)
"""
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")


def read_and_measure(path):
    """Additional megabytes that reading a file takes, and the number of frames or the error."""
    command = [sys.executable, "-c", PEAK_MEMORY, str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    megabytes, said = answer.strip().split(" ", 1)
    return int(megabytes), said


@needs_linux
@pytest.mark.parametrize(
    ("name", "make"),
    [("a.gif", lambda path, *size: path.write_bytes(gif(*size))), ("a.mov", giant_mov)],
    ids=["gif", "mov"],
)
def test_giant_frames_are_refused_before_memory_is_allocated(tmp_path, name, make):
    make(tmp_path / name, 12_000, 12_000)
    megabytes, said = read_and_measure(tmp_path / name)
    assert said.startswith("too-large frames of 12000x12000 pixels")
    assert megabytes < 50  # one frame takes 144 in gray, 576 in colour


@needs_linux
def test_memory_does_not_grow_with_the_frames(tmp_path):
    """Access to a frame's side data puts it into a reference cycle, freed only by the garbage collector."""
    path = write_lossless(tmp_path / "a.gif", moving_ramps(60, 800, 800), "gif")
    megabytes, said = read_and_measure(path)
    assert said == "60"
    assert megabytes < 60  # one frame takes 2.5, decoded to colour


NAMES = [
    "concat:other.mkv|other.ts", "subfile,,start,0,end,10,,:other.mkv", "file:other.mkv", "http:x.mp4",
    "data:text", "-", "pipe:", "pipe:0", "fd:", "img%03d.gif", "*.mkv", "[a].mkv",
    'a\n"b\'.mkv', os.fsdecode(b"\xff\xfe.mkv"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_is_never_taken_for_a_url_or_pattern(tmp_path, monkeypatch, name):
    write_lossless(tmp_path / "other.mkv", random_frames(2))
    write_lossless(tmp_path / "img001.gif", random_frames(2), "gif")
    (tmp_path / name).write_bytes(write_lossless(tmp_path / "a.mkv", random_frames(5)).read_bytes())
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(pixels_of(Path(name)), random_frames(5))


PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\nother.ts\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile 'other.ts'\n",
}
STREAM = """v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96
a=rtpmap:96 H264/90000\n"""
DASH = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1"
bandwidth="1000"><BaseURL>other.ts</BaseURL></Representation></AdaptationSet></Period></MPD>"""


@pytest.mark.parametrize(("name", "text"), [*PLAYLISTS.items(), ("a.sdp", STREAM), ("a.mpd", DASH)])
def test_playlist_opens_no_other_file(tmp_path, monkeypatch, name, text):
    write_lossy(tmp_path / "other.ts", moving_ramps(5))
    (tmp_path / name).write_text(text)
    if name in PLAYLISTS:
        with av.open(str(tmp_path / name)) as file:  # FFmpeg's default opens it
            assert sum(1 for _ in file.decode(video=0)) == 5
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DecodeError):
        read(tmp_path / name)
    # The second barrier holds where the first has a gap.
    monkeypatch.delitem(container._OPTIONS, "format_whitelist")
    with pytest.raises(DecodeError):
        read(tmp_path / name)


# Recognition


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "ffv1"), ("a.avi", "rawvideo"), ("a.mov", "png"), ("a.mp4", "mpeg4"), ("a.gif", "gif"),
     ("a.ts", "mpeg2video"), ("a.m2ts", "mpeg2video"), ("a.mpg", "mpeg2video"), ("a.m2v", "mpeg2video"),
     ("a.m1v", "mpeg1video"), ("a.m4v", "mpeg4"), ("a.h264", "libx264"), ("a.hevc", "libx265"),
     ("a.wmv", "wmv2"), ("a.flv", "flv"), ("a.webm", "libvpx"), ("a.ivf", "libvpx"), ("a.ogv", "libvpx"),
     ("a.nut", "mpeg4"), ("a.mxf", "mpeg2video"), ("a.y4m", "wrapped_avframe"), ("a.3gp", "mpeg4")],
)  # fmt: skip
def test_containers_are_recognised_by_their_first_bytes(tmp_path, name, codec):
    grays = moving_ramps(4, 96, 128)
    if codec in ("ffv1", "rawvideo", "png", "gif"):
        write_lossless(tmp_path / name, grays, codec)
    else:
        write_lossy(tmp_path / name, grays, codec)
    assert is_container(head_of(tmp_path / name))
    assert len(read(tmp_path / name)[0]) == 4


def atom(name, size=24):
    return struct.pack(">I4s", size, name) + bytes(16)


@pytest.mark.parametrize(
    "head",
    [atom(b"moov", 0x12345678), atom(b"mdat", 1), atom(b"mdat", 0x7FFFFFFF), atom(b"free"), atom(b"skip"),
     atom(b"wide", 8), atom(b"pnot", 20), atom(b"styp"), b"\0\0\0\x20ftypisom", b"\0\0\0\x14ftypqt  "],
)  # fmt: skip
def test_atoms_that_may_come_first_make_a_container(head):
    assert is_container(head)


OTHER_FILES = [
    *(
        b"",
        b"\0" * 1024,
        b"PK\x03\x04",
        b"\x1f\x8b\x08\0",
        b"\x7fELF\x02\x01\x01",
        b"MZ\x90\0",
        b"SQLite format 3\0",
    ),
    *(
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"II*\0",
        b"BM6\0",
        b"\0\0\1\0\1\0",
        b"RIFF\0\0\0\0WEBPVP8 ",
    ),
    *(b"\0\0\0\x18ftypheic", b"\0\0\0\x1cftypavif", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cjP  \r\n\x87\n"),
    *(b"\x93NUMPY", b"\0" * 128 + b"DICM", b"\x5c\x01\0\0", b"%PDF-1.7", b"\0\1\0\0", b"\0\0\0\1\0\0\0\2"),
    *(
        b"RIFF\0\0\0\0WAVEfmt ",
        b"ID3\x04",
        b"fLaC",
        b"\0\0\0\x1cftypM4A ",
        b"OggS\0\2" + bytes(22) + b"\1vorbis",
    ),
    *(b"{}", b"GIF is a format", b"for free use", b"and skip it", b"the wide world", b"the styp"),
    *(b"G" * 1024, (b"Good morning. " * 14)[:188] * 5),
]


@pytest.mark.parametrize("head", OTHER_FILES)
def test_other_files_are_not_recognised_as_containers(head):
    assert not is_container(head)


@needs_shared
def test_exactly_the_real_videos_are_recognised_as_containers():
    paths = {path for path in SHARED.rglob("*") if path.is_file()}
    videos = {path for path in paths if SHARED / "videos" in path.parents and path.suffix != ".npy"}
    assert {path for path in paths if is_container(head_of(path))} == videos


def head_of(path):
    with path.open("rb") as file:
        return file.read(1024)
