"""Content decides which library reads a file; the name only promises."""

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image
from pydicom import examples

from benchmarks.phantom import make_phantom
from vidlat.errors import DecodeError
from vidlat.pipeline.folder import videos_in_folder
from vidlat.types import WHOLE, Selection
from vidlat.video import reader
from vidlat.video.reader import is_named_like_video, kind_of, open_video, probe_video
from vidlat.video.writer import write_video

NIBABEL = files("nibabel.tests") / "data"


@pytest.fixture
def mp4(tmp_path):
    write_video(tmp_path / "real.mp4", make_phantom("heart", 0, 25, 32, 32, 25), 25)
    return tmp_path / "real.mp4"


def read(path, selection=WHOLE):
    return list(open_video(path, selection, print).frames())


def make(kind, path):
    """A real file of a kind under any name; returns how many frames it has."""
    if kind == "container":
        write_video(path.with_name("made.mp4"), make_phantom("heart", 0, 5, 32, 32, 25), 25)
        path.with_name("made.mp4").rename(path)
    elif kind == "dicom":
        shutil.copy(examples.get_path("ybr_color"), path)
    elif kind == "nifti":
        shutil.copy(NIBABEL / "anatomical.nii", path)
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros((7, 8, 9), np.uint8))
    else:
        pages = [Image.new("L", (8, 8), level) for level in range(3)]
        pages[0].save(path, format="TIFF", save_all=True, append_images=pages[1:])
    return {"container": 5, "dicom": 30, "nifti": 25, "array": 7, "image": 3}[kind]


@pytest.mark.parametrize("name", ["a.avi", "a.dcm", "a.nii.gz", "a.txt", "noextension"])
@pytest.mark.parametrize("kind", ["container", "dicom", "nifti", "array", "image"])
def test_file_is_read_whatever_its_name(tmp_path, kind, name):
    path = tmp_path / name
    num_frames = make(kind, path)
    with path.open("rb") as file:
        assert kind_of(file) == kind
    assert len(read(path)) == num_frames
    assert probe_video(path, WHOLE).num_frames in (num_frames, None)


@pytest.mark.parametrize("name", ["broken.MP4", "a.dcm", "a.NII.GZ", "a.npy", "deep.name.gif"])
def test_suffixes_of_video_formats(tmp_path, name):
    assert is_named_like_video(tmp_path / name)


@pytest.mark.parametrize("name", ["notes.txt", "table.csv", "archive.zip", "a.gz", ".DS_Store", "mp4"])
def test_other_files_are_no_video(tmp_path, name):
    (tmp_path / name).write_text("nothing")
    assert not is_named_like_video(tmp_path / name)
    with (tmp_path / name).open("rb") as file:
        assert kind_of(file) is None


def test_unknown_content_goes_to_ffmpeg(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_text("some new format")
    asked = []
    real = reader.open_container
    monkeypatch.setattr(reader, "open_container", lambda *a: asked.append(a[0]) or real(*a))
    with pytest.raises(DecodeError):
        read(tmp_path / "a.mp4")
    assert asked == [tmp_path / "a.mp4"]


@pytest.mark.parametrize(
    ("content", "reason", "kind"),
    [
        (b"", "is an empty file", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`", "no-media"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page", "no-media"),
        (b"\xef\xbb\xbf<HTML>", "web page", "no-media"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML text", "no-media"),
    ],
)
def test_a_non_media_file_in_place_of_a_video_is_named(tmp_path, content, reason, kind):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DecodeError, match=reason) as caught:
        read(tmp_path / "a.mp4")
    assert caught.value.kind == kind


def test_a_missing_file_cannot_be_opened(tmp_path):
    with pytest.raises(DecodeError, match="cannot be opened: No such file") as caught:
        read(tmp_path / "a.mp4")
    assert caught.value.kind == "unreadable"


def test_single_picture_is_no_video(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.mp4", format="PNG")
    with pytest.raises(DecodeError, match="single image") as caught:
        read(tmp_path / "a.mp4")
    assert caught.value.kind == "no-video"


def test_images_of_a_folder_are_frames_in_the_given_order(tmp_path):
    for level in (1, 2, 3):
        Image.new("L", (8, 8), level).save(tmp_path / f"{level}.png")
    frames = read(tmp_path, Selection(files=("1.png", "2.png", "3.png")))
    assert [frame.pixels[0, 0] for frame in frames] == [1, 2, 3]


def test_part_of_a_file_is_read_alone(tmp_path):
    path = tmp_path / "a.nii.gz"
    shutil.copy(NIBABEL / "example4d.nii.gz", path)
    assert len(read(path, Selection(part="z07"))) == 2
    with pytest.raises(DecodeError, match="name one"):
        read(path)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(None, None, range(25)), (0.2, None, range(5, 25)), (None, 0.2, range(5)), (0.2, 0.4, range(5, 10))],
)
def test_a_stretch_yields_its_frames_with_times_since_the_first(mp4, start, stop, expected):
    whole = read(mp4)
    frames = read(mp4, Selection(start_seconds=start, stop_seconds=stop))
    np.testing.assert_array_equal([f.pixels for f in frames], [whole[index].pixels for index in expected])
    assert [frame.pts_seconds for frame in frames] == pytest.approx([k / 25 for k in range(len(expected))])


def test_length_of_a_stretch_is_known_before_it_is_decoded(mp4):
    header = probe_video(mp4, Selection(start_seconds=0.2, stop_seconds=0.4))
    assert (header.num_frames, header.seconds) == (5, pytest.approx(0.2))
    beyond = probe_video(mp4, Selection(start_seconds=0.8, stop_seconds=9.0))
    assert (beyond.num_frames, beyond.seconds) == (5, pytest.approx(0.2))


def test_stretch_without_a_frame_is_a_failure(mp4):
    with pytest.raises(DecodeError, match="none between start_seconds and stop_seconds") as caught:
        read(mp4, Selection(start_seconds=5.0))
    assert caught.value.kind == "no-frames"


def test_stretch_of_a_file_without_times_is_a_failure(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(DecodeError, match="has no times") as caught:
        read(tmp_path / "a.npy", Selection(stop_seconds=1.0))
    assert caught.value.kind == "no-times"


def test_the_end_of_a_stretch_is_not_warned_of_as_truncation(mp4):
    told = []
    list(open_video(mp4, Selection(stop_seconds=0.2), told.append).frames())
    assert told == []


names = st.text(max_size=5)
seconds = st.none() | st.floats(0, allow_infinity=False)


@given(
    st.builds(
        Selection,
        files=st.lists(names, max_size=3).map(tuple),
        part=st.none() | names,
        start_seconds=seconds,
        stop_seconds=seconds,
    )
)
def test_text_of_a_selection_is_complete(selection):
    text = selection.to_text()
    assert Selection.from_text(text) == selection
    assert text.isascii()
    assert (text == "") == (selection == WHOLE)


@pytest.mark.parametrize("text", ["x", "[]", "3", '{"novelty": 1}'])
def test_text_that_is_no_selection_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011  (of the JSON library or our own)
        Selection.from_text(text)


@pytest.mark.parametrize("kind", ["container", "dicom", "nifti", "array", "image"])
def test_a_file_is_opened_once_to_find_its_video_and_twice_to_read_it(tmp_path, kind, monkeypatch):
    path = tmp_path / "a"
    make(kind, path)
    opened, real = [], Path.open
    monkeypatch.setattr(
        Path, "open", lambda *arguments, **options: opened.append(1) or real(*arguments, **options)
    )
    videos, _ = videos_in_folder(tmp_path, [path])
    assert (len(videos), len(opened)) == (1, 1)
    read(path)
    assert len(opened) <= 3
