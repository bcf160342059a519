"""Moving pictures are the MP4 they came from, or a smaller one that shows the same, or none."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from benchmarks.phantom import make_phantom
from tests.report.made import noise
from vidlat.report.moving import QUANTIZERS, moving_file, moving_picture
from vidlat.types import WHOLE
from vidlat.video.reader import open_video
from vidlat.video.writer import write_video

FRAMES = make_phantom("lung", 0, 12, 64, 64, 20)


def frames_of(moving, tmp_path):
    path = tmp_path / "read.mp4"
    path.write_bytes(moving.mp4)
    frames = list(open_video(path, WHOLE, lambda _: None).frames())
    return np.stack([frame.pixels for frame in frames]).astype(int), frames[1].pts_seconds


@pytest.fixture
def file(tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES, 20)
    return tmp_path / "a.mp4"


def test_a_file_that_fits_is_shown_as_it_is(file):
    moving = moving_file("a", "note", file, 2 * file.stat().st_size)
    assert moving.mp4 == file.read_bytes()
    assert not moving.is_coarse
    assert moving.mp4_uri.startswith("data:video/mp4;base64,")
    with Image.open(BytesIO(moving.still)) as still:
        assert np.abs(np.asarray(still).astype(int) - FRAMES[6]).mean() < 4


def test_a_file_that_does_not_fit_is_compressed_more_and_shows_the_same(file, tmp_path):
    most_bytes = 2 * file.stat().st_size // 3
    moving = moving_file("a", "note", file, most_bytes)
    assert len(moving.mp4) + len(moving.still) <= most_bytes
    assert moving.is_coarse
    frames, second = frames_of(moving, tmp_path)
    assert frames.shape == FRAMES.shape
    assert second == pytest.approx(1 / 20)
    assert np.abs(frames - FRAMES).mean() < 6


def test_frames_are_written_as_finely_as_fits(tmp_path):
    fine = moving_picture("a", "", list(FRAMES), 20, 10**6)
    assert not fine.is_coarse
    assert np.abs(frames_of(fine, tmp_path)[0] - FRAMES).max() <= 8
    coarse = moving_picture("a", "", list(FRAMES), 20, len(fine.mp4) + len(fine.still) - 1)
    assert coarse.is_coarse
    assert len(coarse.mp4) < len(fine.mp4)
    assert sorted(QUANTIZERS) == list(QUANTIZERS)


def test_what_fits_at_no_quality_is_none(file):
    assert moving_picture("a", "", list(noise()), 20, 100) is None
    assert moving_file("a", "", file, 100) is None
