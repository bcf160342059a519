"""Videos beside one another are those videos, pixel by pixel, each below its label."""

import numpy as np
import pytest

from tests.thorough import some_of
from vidlat.errors import ShapeError
from vidlat.video import side_by_side as module
from vidlat.video.side_by_side import side_by_side

LABEL = "tiny finetuned overlap 0 stack 16"


def noise(num_videos, num_frames=3, height=40, width=160, seed=0):
    shape = num_videos, num_frames, height, width
    videos = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return {f"setting {number}": video for number, video in enumerate(videos)}


def place(frame, tile):
    """Top and left edge of the one place where `frame` holds `tile`."""
    height, width = tile.shape
    corners = np.argwhere(frame[: -height + 1, : -width + 1] == tile[0, 0])
    (found,) = [
        (int(top), int(left))
        for top, left in corners
        if np.array_equal(frame[top : top + height, left : left + width], tile)
    ]
    return found


@pytest.mark.parametrize("num_videos", some_of([1, 2, 5, 13, 25]))
def test_every_tile_is_its_video_and_stays_where_it_is(num_videos):
    videos = noise(num_videos)
    frames = list(side_by_side(videos))
    assert len(frames) == 3
    places = [[place(frame, video[t]) for video in videos.values()] for t, frame in enumerate(frames)]
    assert places[0] == places[1] == places[2]
    assert sorted(places[0]) == places[0]  # in reading order


def test_many_videos_fill_a_screen():
    (frame, *_) = side_by_side(noise(25, 1, 256, 256))
    height, width = frame.shape
    assert 1.2 < width / height < 2.4


def test_a_long_label_takes_several_lines_above_its_video():
    white = np.full((1, 60, 64), 255, np.uint8)
    one, several = (
        next(side_by_side({name: white})) for name in ("tiny", "tiny stack 16 stretch 4 overlap 12 finetuned")
    )
    assert one.shape[1] == several.shape[1]
    assert [num_lines(frame) for frame in (one, several)] == [1, 2]  # 44 letters do not fit in 256 pixels


def test_a_number_stays_with_the_word_before_it():
    black = np.zeros((1, 60, 64), np.uint8)
    short, long = (next(side_by_side({name: black})) for name in (LABEL, f"{LABEL} stretch 2"))
    np.testing.assert_array_equal(short[:32], long[:32])  # the first line


def num_lines(frame):
    """Lines of text: runs of rows with something bright in them, the video below not counted."""
    is_bright = (frame > 100).any(1)
    return int((np.diff(is_bright.astype(int), prepend=0) == 1).sum()) - 1


def test_a_word_that_is_wider_than_its_column_keeps_its_end():
    black = np.zeros((1, 20, 20), np.uint8)
    plain = next(side_by_side({"x": black}))
    assert next(side_by_side({"w" * 500 + "x": black})).shape == plain.shape


@pytest.mark.parametrize(
    "videos", [{}, {"a": np.zeros((2, 8, 8), np.uint8), "b": np.zeros((3, 8, 8), np.uint8)}]
)
def test_videos_of_different_shapes_and_none_are_refused(videos):
    with pytest.raises(ShapeError, match="expected videos of one shape"):
        list(side_by_side(videos))


@pytest.mark.parametrize(("width", "scale"), [(20, 12), (64, 4), (65, 3), (128, 2), (129, 1), (300, 1)])
def test_pixels_of_small_videos_are_squares(width, scale):
    (small,) = noise(1, 1, 30, width).values()
    (frame,) = side_by_side({"x": small})
    place(frame, np.kron(small[0], np.ones((scale, scale), np.uint8)))


def test_a_grid_may_have_the_columns_that_are_asked_for():
    videos = noise(3, 1, 30, 256)
    (row,), (column,) = side_by_side(videos, 3), side_by_side(videos, 1)
    assert row.shape[1] - 12 == 3 * (column.shape[1] - 12)  # but for the gap that both have
    for video in videos.values():
        place(row, video[0])
        place(column, video[0])


def test_frames_are_taken_as_they_are_asked_for():
    (video,) = noise(1, 3).values()
    taken = []
    frames = side_by_side({"x": (taken.append(frame) or frame for frame in video)})
    for number in (1, 2):
        next(frames)
        assert len(taken) == number


def test_a_video_that_ends_early_is_refused_after_the_frames_that_all_have():
    (video,) = noise(1, 3).values()
    frames = side_by_side({"x": iter(video), "y": iter(video[:2])})
    assert next(frames).shape == next(frames).shape
    with pytest.raises(ShapeError, match="frame 2: expected videos of one shape"):
        next(frames)


def test_a_window_brightens_all_videos_alike_and_a_line_below_them_tells_it(monkeypatch):
    videos = {
        "source": np.full((1, 256, 256), 40, np.uint8),
        "decoded": np.full((1, 256, 256), 110, np.uint8),
    }
    (plain,) = side_by_side(videos)
    said = []
    monkeypatch.setattr(module, "cut_to_width", lambda _, text, *__: said.append(text) or text)
    (frame,) = side_by_side(videos, window=100)
    assert said == ["source", "decoded", "gray levels 0 to 100 shown as 0 to 255"]
    height, width = plain.shape
    assert (frame.shape[1], frame.shape[0] > height) == (width, True)
    assert frame[height:].max() > 200  # the line
    tiles = frame[12 + 22 : height - 12]
    assert (tiles[:, 12:268] == 102).all()  # 40 of 100
    assert (tiles[:, 280:536] == 255).all()  # above the window
    np.testing.assert_array_equal(frame[: 12 + 22], plain[: 12 + 22])  # labels stay as they are
