"""Content decides which library reads a file; the name only promises."""

import shutil

import numpy as np
import pytest
from pydicom import examples

from vidlat.video import reader
from vidlat.video.phantom import make_phantom
from vidlat.video.reader import is_video, read_frames
from vidlat.video.writer import write_video


@pytest.fixture
def mp4(tmp_path):
    write_video(tmp_path / "real.mp4", make_phantom("heart", 0, 5, 32, 32, 25), 25)
    return tmp_path / "real.mp4"


@pytest.mark.parametrize("name", ["a.avi", "a.dcm", "a.txt", "noextension"])
def test_video_is_read_whatever_its_name(tmp_path, mp4, name):
    path = shutil.copy(mp4, tmp_path / name)
    assert is_video(path)
    expected = [frame.pixels for frame in read_frames(mp4)]
    np.testing.assert_array_equal([frame.pixels for frame in read_frames(path)], expected)
    assert len(expected) == 5


@pytest.mark.parametrize("name", ["a.dcm", "a.mp4", "IM0001"])
def test_dicom_is_read_whatever_its_name(tmp_path, name):
    path = shutil.copy(examples.get_path("ybr_color"), tmp_path / name)
    assert is_video(path)
    assert sum(1 for _ in read_frames(path)) == 30


def test_name_that_promises_a_video_counts_as_one_whatever_is_inside(tmp_path):
    (tmp_path / "broken.MP4").write_text("nothing")
    assert is_video(tmp_path / "broken.MP4")


@pytest.mark.parametrize("name", ["notes.txt", "picture.png", "table.csv", "archive.zip"])
def test_other_files_are_no_video(tmp_path, name):
    (tmp_path / name).write_text("nothing")
    assert not is_video(tmp_path / name)


def test_content_nobody_recognises_goes_to_ffmpeg(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_text("some new format")
    asked = []
    monkeypatch.setattr(reader, "read_container", lambda path, warn: asked.append(path) or iter(["frame"]))
    assert list(read_frames(tmp_path / "a.mp4")) == ["frame"]
    assert asked == [tmp_path / "a.mp4"]
