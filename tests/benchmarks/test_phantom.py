"""Phantoms move, speckle, and are the same every time."""

import runpy
import sys

import numpy as np
import pytest
from pydicom import examples

from benchmarks import phantom
from benchmarks.phantom import make_phantom, write_demo_videos
from tests.thorough import some_of
from vidlat.types import WHOLE
from vidlat.video.reader import open_video

KINDS = ["heart", "lung"]


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_pixels_and_another_seed_others(kind):
    first = make_phantom(kind, 1, 3, 40, 48, 25)
    np.testing.assert_array_equal(first, make_phantom(kind, 1, 3, 40, 48, 25))
    assert (first != make_phantom(kind, 2, 3, 40, 48, 25)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_longer_clip_begins_with_the_shorter_one(kind):
    np.testing.assert_array_equal(
        make_phantom(kind, 5, 6, 40, 48, 25)[:4], make_phantom(kind, 5, 4, 40, 48, 25)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (41, 67), (144, 96)])
def test_any_size_is_filled_with_gray_of_full_range(kind, size):
    frames = make_phantom(kind, 0, 2, *size, 25)
    assert frames.shape == (2, *size)
    assert frames.dtype == np.uint8
    assert frames.max() > 200
    assert frames.min() == 0
    assert 15 < frames.mean() < 140


def test_outside_the_sector_all_is_black_and_stays_so():
    frames = make_phantom("heart", 0, 5, 96, 96, 25)
    assert not frames[:, :10, :20].any()
    assert not frames[:, :10, -20:].any()


@pytest.mark.parametrize("seed", some_of(range(4)))
def test_heart_beats_so_that_its_dark_lumen_shrinks_and_comes_back(seed):
    # Two seconds hold at least one whole beat.
    frames = make_phantom("heart", seed, 40, 96, 96, 20)
    lumen = (frames[:, 20:75, 34:66] < 40).mean((1, 2))
    assert lumen.min() < 0.8 * lumen.max()
    smallest = int(lumen.argmin())
    assert max(lumen[:smallest].max(initial=0), lumen[smallest:].max()) > 0.95 * lumen.max()


@pytest.mark.parametrize("kind", KINDS)
def test_speckle_belongs_to_the_tissue_and_moves_with_it(kind):
    def least_likeness(fps):
        frames = make_phantom(kind, 1, 12, 96, 96, fps).astype(float)
        seen = frames[0] > 0
        return min(np.corrcoef(frames[0][seen], frame[seen])[0, 1] for frame in frames)

    assert least_likeness(fps=5000) > 0.97  # within two milliseconds nothing moves
    assert least_likeness(fps=10) < 0.8  # within a second much does


@pytest.mark.slow  # `make demo` makes them too
def test_demo_videos_are_of_varied_length_and_hold_a_real_cine(tmp_path):
    paths = write_demo_videos(tmp_path / "new" / "folder")
    lengths = {path.name: sum(1 for _ in open_video(path, WHOLE, print).frames()) for path in paths}
    assert len(lengths) == 11
    assert lengths["us_cine.dcm"] == 30
    assert len(set(lengths.values())) == 11
    assert all(18 <= length <= 60 for length in lengths.values())
    assert (tmp_path / "new" / "folder" / "us_cine.dcm").read_bytes() == examples.get_path(
        "ybr_color"
    ).read_bytes()
    assert sum(path.stat().st_size for path in paths) < 4_000_000


def test_command_without_a_folder_says_how_to_use_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["phantom"])
    with pytest.raises(SystemExit, match=r"usage: python benchmarks/phantom\.py FOLDER"):
        runpy.run_path(phantom.__file__, run_name="__main__")
