"""H.264 files, read back with PyAV as any player would."""

import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.phantom import make_phantom
from vidlat.errors import DecodeError, InputError, ShapeError
from vidlat.video.writer import (
    DEFAULT_FPS,
    prepare_file,
    prepare_folder,
    write_array,
    write_gif,
    write_video,
)


def decode(path):
    """Frames (T, H, W), rate and times."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        gray = np.stack([frame.to_ndarray(format="gray") for frame in frames])
        return gray, stream.average_rate, [frame.time for frame in frames]


def assert_close(decoded, frames):
    difference = np.abs(decoded.astype(int) - frames)
    assert difference.max() <= 8
    assert difference.mean() <= 1


@pytest.mark.parametrize("kind", ["heart", "lung"])
def test_ultrasound_comes_back_within_the_stated_tolerance(tmp_path, kind):
    frames = make_phantom(kind, 1, 12, 96, 112, 25)
    assert write_video(tmp_path / "a.mp4", frames, 25) == 12
    assert_close(decode(tmp_path / "a.mp4")[0], frames)


def test_every_gray_level_comes_back(tmp_path):
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 32, 256))
    write_video(tmp_path / "a.mp4", ramp, 25)
    decoded, _, _ = decode(tmp_path / "a.mp4")
    assert_close(decoded, ramp)
    assert decoded.min() <= 2
    assert decoded.max() >= 253


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))),
    fps=st.sampled_from([0.0, 1.0, 22.67, 25.0, 29.97, 120.0]),
)
def test_any_size_and_length_comes_back_with_a_repeated_edge_where_odd(tmp_path, frames, fps):
    write_video(tmp_path / "a.mp4", frames, fps)
    decoded, _, times = decode(tmp_path / "a.mp4")
    num_frames, height, width = frames.shape
    even = frames[:, np.minimum(np.arange(height + height % 2), height - 1)]
    even = even[:, :, np.minimum(np.arange(width + width % 2), width - 1)]
    assert decoded.shape == even.shape
    assert np.abs(decoded.astype(int) - even).max() <= 8
    assert times == pytest.approx(np.arange(num_frames) / (fps or DEFAULT_FPS), rel=1e-3)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (25, Fraction(25)),
        (30000 / 1001, Fraction(30000, 1001)),
        (68 / 3, Fraction(68, 3)),
        (Fraction(24000, 1001), Fraction(24000, 1001)),
        (0.0, Fraction(DEFAULT_FPS)),
        (-1.0, Fraction(DEFAULT_FPS)),
        (1e-9, Fraction(DEFAULT_FPS)),
        (float("nan"), Fraction(DEFAULT_FPS)),
        (float("inf"), Fraction(DEFAULT_FPS)),
    ],
)
def test_rate_is_the_fraction_meant_or_the_default(tmp_path, fps, rate):
    write_video(tmp_path / "a.mp4", np.zeros((4, 16, 16), np.uint8), fps)
    decoded, written, times = decode(tmp_path / "a.mp4")
    assert len(decoded) == 4
    assert written == rate
    assert times == pytest.approx([float(index / rate) for index in range(4)])


def test_file_says_that_its_range_is_limited(tmp_path):
    write_video(tmp_path / "a.mp4", np.full((2, 16, 16), 255, np.uint8), 25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.color_range == ColorRange.MPEG
        assert np.asarray(frame.planes[0])[0] == 235


def test_frames_are_taken_one_by_one_and_let_go(tmp_path):
    alive = weakref.WeakSet()
    most_alive = 0

    class Pixels(np.ndarray):
        __hash__ = object.__hash__

    def frames():
        nonlocal most_alive
        for _ in range(50):
            pixels = np.zeros((16, 16), np.uint8).view(Pixels)
            alive.add(pixels)
            most_alive = max(most_alive, len(alive))
            yield pixels

    assert write_video(tmp_path / "a.mp4", frames(), 25) == 50
    assert most_alive <= 3


def test_equal_frames_make_equal_files(tmp_path):
    frames = make_phantom("heart", 3, 6, 64, 64, 25)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, frames, 25)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def fails_after_three():
    yield from np.zeros((3, 16, 16), np.uint8)
    raise DecodeError("truncated", "truncated")


def test_a_source_that_fails_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"before")
    with pytest.raises(DecodeError, match="truncated"):
        write_video(tmp_path / "a.mp4", fails_after_three(), 25)
    assert (tmp_path / "a.mp4").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "at least one frame"),
        ([np.zeros((16, 16), np.float32)], "float32"),
        ([np.zeros((16, 16, 3), np.uint8)], r"\(16, 16, 3\)"),
        ([np.zeros((16, 16), np.uint8), np.zeros((16, 18), np.uint8)], r"frame 1: got uint8 \(16, 18\)"),
    ],
)
def test_frames_that_make_no_video_are_refused_and_leave_nothing(tmp_path, frames, message):
    with pytest.raises(ShapeError, match=message):
        write_video(tmp_path / "a.mp4", iter(frames), 25)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    frames = np.zeros((3, 16, 16), np.uint8)
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing" / "a.mp4", tmp_path / "file" / "a.mp4", tmp_path / ("a" * 256)):
        with pytest.raises(InputError, match=r"cannot be written \(") as refusal:
            write_video(path, frames, 25)
        assert str(path) in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    write_video(tmp_path / f"{'a' * 251}.mp4", frames, 25)


def test_a_folder_is_made_and_tried(tmp_path):
    prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    with pytest.raises(InputError, match="is a folder; give another --json"):
        prepare_file(tmp_path / "a", "--json")
    with pytest.raises(InputError, match=r"File name too long\); give another --out"):
        prepare_file(tmp_path / ("x" * 300))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="give another --out"):
        prepare_file(tmp_path / "file" / "x.json")


WRITERS = {
    ".mp4": lambda path, frames: write_video(path, frames, 25),
    ".gif": lambda path, frames: write_gif(path, frames, 25),
    ".npy": write_array,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_interrupted_leaves_the_file_that_was_there(tmp_path, monkeypatch, kind):
    path = tmp_path / f"a{kind}"
    WRITERS[kind](path, np.zeros((3, 16, 16), np.uint8))
    before = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        WRITERS[kind](path, np.full((3, 16, 16), 99, np.uint8))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(path.name, before)]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_is_not_there_is_one_line_for_every_kind(tmp_path, kind):
    with pytest.raises(InputError, match=r"cannot be written \(No such file"):
        WRITERS[kind](tmp_path / "missing" / f"a{kind}", np.zeros((3, 16, 16), np.uint8))
