"""Interlaced video: the truth is a scene drawn once per field, from which the clips are woven."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from av.filter import Graph

from vidlat.config import Reading
from vidlat.types import WHOLE
from vidlat.video.reader import open_video

INTERLACED = {"flags": "+ilme+ildct"}
CODECS = {
    "a.mp4": ("libx264", {"qp": "5", **INTERLACED}),
    "a.mpg": ("mpeg2video", {"qscale": "1", **INTERLACED}),
    "a.mkv": ("ffv1", {}),
}


def scene(num_fields, height=96, width=128):
    """Soft waves and a blob that move to the right, as smooth as video is."""
    rows, columns = np.mgrid[:height, :width]
    fields = []
    for t in range(num_fields):
        blob = np.exp(-((columns - 20 - 3 * t) ** 2 + (rows - 48) ** 2) / 200)
        fields.append(120 + 60 * np.sin((columns - 3 * t) / 6 + rows / 9) + 50 * blob)
    return np.stack(fields).astype(np.uint8)


def woven(fields):
    """Frames whose even lines are of one field's time, and whose odd lines are of the next one's."""
    frames = fields[::2].copy()
    frames[:, 1::2] = fields[1::2, 1::2]
    return frames


def noise(num_frames, height=32, width=48):
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width), np.uint8)


def flagged(mode, pix_fmt, height, width):
    graph = Graph()
    source = graph.add_buffer(None, width, height, av.VideoFormat(pix_fmt), time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setfield", f"mode={mode}"), graph.add("buffersink")).configure()
    return graph


def write(path, grays, modes="tff", codec=None, options=None, pix_fmt="yuv420p"):
    """Write gray frames, each flagged as its mode says: tff (top field first) or prog (progressive)."""
    codec, options = (codec, options) if codec else CODECS[path.name]
    height, width = grays[0].shape
    modes = [modes] * len(grays) if isinstance(modes, str) else modes
    graphs = {mode: flagged(mode, pix_fmt, height, width) for mode in modes}
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.pix_fmt, stream.height, stream.width = pix_fmt, height, width
        for index, (gray, mode) in enumerate(zip(grays, modes, strict=True)):
            frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            graphs[mode].vpush(frame)
            file.mux(stream.encode(graphs[mode].vpull()))
        file.mux(stream.encode())
    return path


def read(path, deinterlace="auto"):
    """The frames of a file and its warnings."""
    warnings = []
    return [*open_video(path, WHOLE, warnings.append, Reading(deinterlace=deinterlace)).frames()], warnings


def pixels(frames):
    return np.stack([frame.pixels for frame in frames]).astype(int)


def decoded(path):
    """The frames as PyAV alone decodes them."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="gray") for frame in file.decode(video=0)])


@pytest.mark.parametrize("name", CODECS)
def test_deinterlaced_frames_are_nearer_to_the_scene_than_woven_ones(tmp_path, name):
    fields = scene(24)
    path = write(tmp_path / name, woven(fields))
    frames, warnings = read(path)
    combed, told = read(path, "off")
    assert len(frames) == len(combed) == 12
    error, combed_error = (np.abs(pixels(got) - fields[::2]).mean() for got in (frames, combed))
    assert error < combed_error / 3
    np.testing.assert_array_equal(pixels(combed), decoded(path))
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(12) / 25)
    assert [frame.pts_seconds for frame in frames] == [frame.pts_seconds for frame in combed]
    assert warnings == [
        "interlaced: deinterlaced by FFmpeg's bwdif; --deinterlace off keeps the frames as they are"
    ]
    assert told == ["interlaced: moving edges are combs; --deinterlace auto removes them"]


@pytest.mark.parametrize("name", CODECS)
def test_progressive_video_is_what_pyav_decodes(tmp_path, name):
    codec, options = CODECS[name]
    options = {name: value for name, value in options.items() if name != "flags"}
    path = write(tmp_path / name, scene(12), "prog", codec, options)
    frames, warnings = read(path)
    np.testing.assert_array_equal(pixels(frames), decoded(path))
    assert warnings == []


@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_every_frame_comes_out_in_order_with_its_time_and_its_first_field(tmp_path, num_frames):
    grays = noise(num_frames)
    for modes in itertools.product(("prog", "tff"), repeat=num_frames):
        path = write(tmp_path / "a.mkv", grays, modes, "ffv1", {}, "gray")
        frames, warnings = read(path)
        assert [frame.pts_seconds for frame in frames] == [index / 25 for index in range(num_frames)]
        assert len(warnings) == ("tff" in modes)
        for frame, gray, mode in zip(frames, grays, modes, strict=True):
            kept = slice(None, None, 2 if mode == "tff" else 1)
            np.testing.assert_array_equal(frame.pixels[kept], gray[kept])


def test_frames_of_two_sizes_are_both_deinterlaced(tmp_path):
    """MPEG-2 streams can be put one after the other; FFmpeg loses the last frame of the first."""
    sizes = {(64, 96): 4, (96, 64): 5}
    fields = [scene(10, *size) for size in sizes]
    parts = [
        write(tmp_path / f"{number}.m2v", woven(part), "tff", *CODECS["a.mpg"]).read_bytes()
        for number, part in enumerate(fields)
    ]
    (tmp_path / "a.m2v").write_bytes(b"".join(parts))
    frames, warnings = read(tmp_path / "a.m2v")
    combed, _ = read(tmp_path / "a.m2v", "off")
    for size, part in zip(sizes, fields, strict=True):
        truth = part[::2][: sizes[size]]
        got, woven_ones = ([one for one in found if one.pixels.shape == size] for found in (frames, combed))
        assert np.abs(pixels(got) - truth).mean() < np.abs(pixels(woven_ones) - truth).mean() / 3
    assert "the frame size changes from 96x64 to 64x96" in warnings


def test_a_damaged_frame_is_known_as_such(tmp_path):
    path = write(tmp_path / "a.mp4", woven(scene(24)), codec="libx264", options={"bf": "0", **INTERLACED})
    with av.open(str(path)) as file:
        packet = [packet for packet in file.demux(video=0) if packet.size][5]
        at, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[at + size // 2 : at + size] = bytes(size - size // 2)
    path.write_bytes(data)
    damaged, as_decoded = ([frame.is_damaged for frame in read(path, how)[0]] for how in ("auto", "off"))
    assert damaged == as_decoded
    assert damaged.index(True) == 5


@pytest.mark.parametrize("pix_fmt", ["uyvy422", "rgb24"])
def test_pixel_formats_that_the_filter_lacks_are_converted(tmp_path, pix_fmt):
    fields = scene(8)
    path = write(tmp_path / "a.mov", woven(fields), "tff", "rawvideo", {"field_order": "tt"}, pix_fmt)
    frames, _ = read(path)
    combed, _ = read(path, "off")
    assert np.abs(pixels(frames) - fields[::2]).mean() < np.abs(pixels(combed) - fields[::2]).mean() / 3


def test_frames_too_small_for_the_filter_stay_as_they_are(tmp_path):
    grays = noise(3, 12, 12)
    frames, warnings = read(write(tmp_path / "a.mkv", grays, codec="ffv1", options={}, pix_fmt="gray"))
    np.testing.assert_array_equal(pixels(frames), grays)
    assert warnings == []


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 19), (16, 200)])
@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p", "yuv410p", "yuv422p10le", "gray16le"])
def test_the_filter_takes_frames_down_to_16_pixels(tmp_path, pix_fmt, height, width):
    path = write(tmp_path / "a.mkv", noise(2, height, width), codec="ffv1", options={}, pix_fmt=pix_fmt)
    frames, warnings = read(path)
    assert [frame.pixels.shape for frame in frames] == [(height, width)] * 2
    assert len(warnings) == 1
