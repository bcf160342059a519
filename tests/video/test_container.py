"""Real containers: lossless ones give their exact pixels, damaged ones a reason."""

import csv
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidlat.errors import DecodeError
from vidlat.video import container
from vidlat.video.container import MAX_MISSING_FRAMES, is_container, read_container
from vidlat.video.reader import read_frames
from vidlat.video.writer import write_video

SHARED = Path(__file__).parents[3] / "shared" / "data"
DERIVED = SHARED / "videos" / "derived"
needs_shared = pytest.mark.skipif(not DERIVED.is_dir(), reason="the project's test videos are not here")


def random_frames(num_frames=7, height=20, width=30, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (num_frames, height, width), dtype, True)


def write_lossless(path, frames, codec="ffv1", pix_fmt="gray", fps=25, aspect=None):
    """Frames as they are, by PyAV alone: nothing of the project takes part."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=fps)
        stream.pix_fmt = pix_fmt
        stream.height, stream.width = frames.shape[1:]
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format=pix_fmt)
            frame.pts, frame.time_base = index, 1 / Fraction(fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def pixels_of(path):
    return np.stack([frame.pixels for frame in read_frames(path)])


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "ffv1"), ("a.avi", "rawvideo"), ("a.nut", "rawvideo"), ("a.mov", "png")]
)
def test_lossless_gray_comes_back_exactly(tmp_path, name, codec):
    frames = random_frames()
    got = pixels_of(write_lossless(tmp_path / name, frames, codec))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, frames)


def test_sixteen_bits_come_back_exactly(tmp_path):
    frames = random_frames(dtype=np.uint16)
    got = pixels_of(write_lossless(tmp_path / "a.mkv", frames, pix_fmt="gray16le"))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, frames)


def test_colour_becomes_luma_of_bt601(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 100, 50]], np.uint8)
    frame = av.VideoFrame.from_ndarray(
        np.broadcast_to(colours, (16, 4, 3)).repeat(8, 1).copy(), format="bgr24"
    )
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.pix_fmt, stream.height, stream.width = "bgr0", 16, 32
        file.mux(stream.encode(frame.reformat(format="bgr0")))
        file.mux(stream.encode())
    (got,) = pixels_of(tmp_path / "a.mkv")
    expected = colours[:, ::-1] @ [0.299, 0.587, 0.114]
    assert np.abs(got[8, 4::8] - expected).max() <= 2


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
def test_every_real_clip_has_the_frames_that_its_manifest_counts():
    with (SHARED / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("videos/")]
    counted = {row["path"]: int(row["n_frames"]) for row in rows if not row["path"].endswith(".npy")}
    assert len(counted) > 40
    assert {path: sum(1 for _ in read_frames(SHARED / path)) for path in counted} == counted


@needs_shared
def test_avi_that_is_an_mp4_is_read():
    misnamed = [
        p for p in (SHARED / "videos" / "northumbria").glob("*.avi") if p.read_bytes()[4:8] == b"ftyp"
    ]
    assert len(misnamed) == 3
    assert all(next(read_frames(path)).pixels.size for path in misnamed)


@needs_shared
def test_real_clips_with_pixels_that_are_not_square_say_so():
    frames = [next(read_frames(path)) for path in (SHARED / "videos" / "stemlyns").glob("*.mp4")]
    assert [frame.sample_aspect_ratio for frame in frames] == [9 / 8, 9 / 8]


# The 3 x 3 matrix of an MP4's track header, as the ISO format writes it, for a picture that a player is to
# turn clockwise. The oracle is geometry: np.rot90 turns the other way.
TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def turn(path, clockwise):
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    assert struct.unpack(">9i", data[matrix : matrix + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 for value in TURNS[clockwise])
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("clockwise", TURNS)
def test_rotation_is_applied(tmp_path, clockwise):
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 3, (32, 64)).copy()
    ramp[:8] = 0
    write_video(tmp_path / "a.mp4", [ramp, ramp], 25)
    turn(tmp_path / "a.mp4", clockwise)
    got = pixels_of(tmp_path / "a.mp4")
    expected = np.rot90(ramp, -clockwise // 90)
    assert got[0].shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 8
    assert got[0].flags.c_contiguous


@pytest.mark.parametrize(("clockwise", "expected"), [(0, 9 / 8), (90, 8 / 9), (180, 9 / 8)])
def test_aspect_ratio_of_a_pixel_is_told_and_turns_with_the_picture(tmp_path, clockwise, expected):
    path = write_lossless(tmp_path / "a.mp4", random_frames(2, 32, 48), "png", aspect=Fraction(9, 8))
    turn(path, clockwise)
    assert next(read_frames(path)).sample_aspect_ratio == pytest.approx(expected)


def test_times_count_from_the_first_frame(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.pix_fmt, stream.height, stream.width = "gray", 16, 16
        for milliseconds in (500, 540, 700):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16), np.uint8), format="gray")
            frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    times = [frame.pts_seconds for frame in read_frames(tmp_path / "a.mkv")]
    assert times == pytest.approx([0, 0.04, 0.2])


def gif(width, height):
    """A GIF of one frame that takes a few bytes, whatever its size."""
    screen = struct.pack("<HH", width, height)
    return b"GIF89a" + screen + b"\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0" + screen + b"\0\2\2\x4c\1\0\x3b"


def test_giant_frames_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "_to_gray", None)  # would fail if a frame came through
    (tmp_path / "a.gif").write_bytes(gif(12_000, 12_000))
    with pytest.raises(DecodeError, match="12000x12000 pixels") as error:
        list(read_frames(tmp_path / "a.gif"))
    assert error.value.kind == "too-large"


def test_frame_that_outgrows_what_the_file_announced_is_refused(tmp_path, monkeypatch):
    path = write_lossless(tmp_path / "a.mkv", random_frames())
    refuse, sizes = container._refuse_giants, []

    def refuse_from_the_second_question(width, height):
        sizes.append((width, height))
        refuse(*((10_000, 10_000) if len(sizes) > 1 else (width, height)))

    monkeypatch.setattr(container, "_refuse_giants", refuse_from_the_second_question)
    with pytest.raises(DecodeError, match="10000x10000"):
        list(read_frames(path))


def audio_only(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def frameless(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.pix_fmt, stream.height, stream.width = "gray", 16, 16
        file.start_encoding()


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty", "is an empty file"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "unreadable", "Invalid data"),
        (lambda path: path.write_text("no video\n" * 100), "unreadable", "Invalid data"),
        (lambda path: None, "unreadable", "No such file"),
        (audio_only, "no-video", "holds no video stream"),
        (frameless, "no-video", "holds no video stream"),
        (lambda path: path.mkdir(), "unreadable", "Is a directory"),
    ],
    ids=["empty", "garbage", "text", "missing", "audio", "frameless", "folder"],
)
def test_what_holds_no_frame_is_refused_with_its_reason(tmp_path, make, kind, reason):
    path = tmp_path / "a.mp4"
    make(path)
    with pytest.raises(DecodeError, match=reason) as error:
        list(read_frames(path))
    assert error.value.kind == kind
    assert "\n" not in str(error.value)


def test_file_without_any_decodable_frame_is_refused(tmp_path, monkeypatch):
    path = write_lossless(tmp_path / "a.mkv", random_frames())
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(DecodeError, match="no frame") as error:
        list(read_frames(path))
    assert error.value.kind == "no-frames"


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_file_gives_whole_frames_from_its_start_or_a_reason(tmp_path, name, share):
    """libav hides the cut in some containers: what it gives must be true, and the cut must be told."""
    frames = random_frames(20, 64, 64)
    codec = {"a.mkv": "ffv1", "a.avi": "rawvideo", "a.mp4": "png"}[name]
    path = write_lossless(tmp_path / name, frames, codec)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    warnings = []
    got, kind = frames_and_kind(path, warnings.append)
    assert kind in (None, "unreadable", "no-frames")
    assert kind or len(got) >= len(frames) - MAX_MISSING_FRAMES or "cut off?" in warnings[0]
    assert len(got) < len(frames)
    assert all((pixels == true).all() for pixels, true in zip(got, frames, strict=False))


def test_whole_files_come_without_a_warning(tmp_path):
    for name, codec in (("a.mkv", "ffv1"), ("a.avi", "rawvideo"), ("a.mp4", "png")):
        path = write_lossless(tmp_path / name, random_frames(20, 64, 64), codec)
        warnings = []
        assert len(list(read_frames(path, warnings.append))) == 20
        assert warnings == []


def frames_and_kind(path, warn=lambda _: None):
    """The frames that come, and the kind of error that ends them, if one does."""
    got = []
    try:
        for frame in read_frames(path, warn):
            got.append(frame.pixels)
    except DecodeError as error:
        return got, error.kind
    return got, None


def test_flipped_bytes_end_in_frames_or_a_reason_but_never_in_another_error(tmp_path):
    write_video(tmp_path / "a.mp4", random_frames(12, 64, 64), 25)
    whole = (tmp_path / "a.mp4").read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(30):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), 10):
            damaged[position] ^= 0xFF
        (tmp_path / "b.mp4").write_bytes(damaged)
        got, kind = frames_and_kind(tmp_path / "b.mp4")
        assert kind in (None, "unreadable", "no-frames", "no-video", "too-large", "unknown-codec")
        assert got or kind


def test_codec_that_nobody_knows_is_named_as_the_reason(tmp_path):
    path = write_lossless(tmp_path / "a.mp4", random_frames(2, 32, 48), "png")
    # The name of the codec, and its number in the descriptor (0x6D is PNG).
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"zzzz").replace(b"\x6d\x11", b"\xfe\x11"))
    with pytest.raises(DecodeError, match="does not know") as error:
        list(read_frames(path))
    assert error.value.kind == "unknown-codec"


def test_frames_come_one_at_a_time(tmp_path):
    path = write_lossless(tmp_path / "a.mkv", random_frames(40))
    frames = read_container(path, print)
    next(frames)
    path.write_bytes(b"")  # libav has read some of it; that must not matter to who stops here
    frames.close()


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "ffv1"), ("a.avi", "rawvideo"), ("a.mov", "png"), ("a.mp4", "mpeg4"), ("a.gif", "gif"),
     ("a.ts", "mpeg2video"), ("a.mpg", "mpeg2video"), ("a.wmv", "wmv2"), ("a.flv", "flv")],
)  # fmt: skip
def test_containers_are_known_by_their_first_bytes(tmp_path, name, codec):
    pix_fmt = {"ffv1": "gray", "rawvideo": "gray", "png": "gray", "gif": "gray"}.get(codec, "yuv420p")
    with av.open(str(tmp_path / name), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.pix_fmt, stream.height, stream.width = pix_fmt, 32, 32
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32), np.uint8), format="gray")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with (tmp_path / name).open("rb") as opened:
        assert is_container(opened.read(512))


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"{}", b"G" * 100])
def test_other_files_are_no_container(head):
    assert not is_container(head)
