"""Where the recording stands in a frame full of other things."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageDraw

from benchmarks.phantom import make_phantom
from tests.thorough import some_of
from tests.video.made import video_of
from vidlat.errors import ConfigError, DecodeError
from vidlat.video.crop import MOST_FRAMES, cut, find_box

HEIGHT, WIDTH = 240, 320
LEFT, TOP, SIDE = 90, 40, 160


def screen(recording, left=LEFT, top=TOP, is_ticking=False, is_tracing=False):
    """A recording (T, H, W) as a scanner shows it: a name, a scale and a logo beside it."""
    for index, pixels in enumerate(recording):
        picture = Image.new("L", (WIDTH, HEIGHT))
        draw = ImageDraw.Draw(picture)
        draw.rectangle([0, 0, WIDTH - 1, 12], fill=40)
        draw.text((4, 1), "HOSPITAL  DOE^JANE  1970-01-01", fill=255)
        draw.text((4, 40), "MI 0.7\nTIS 0.9\n\n2D\nGen", fill=200)
        for mark in range(8):
            draw.line([300, 40 + 20 * mark, 306, 40 + 20 * mark], fill=255)
        draw.rectangle([10, 180, 50, 220], fill=120)
        if is_ticking:
            draw.text((250, 220), f"{index:04d}", fill=255)
        if is_tracing:
            draw.line([(x, 225 + 5 * np.sin(x / 3 + index)) for x in range(80, 240)], fill=255)
        frame = np.array(picture)
        height, width = pixels.shape
        frame[top : top + height, left : left + width] = pixels
        yield frame


@pytest.fixture(scope="module", params=["heart", "lung"])
def phantom(request):
    return make_phantom(request.param, 0, 20, SIDE, SIDE, 25)


def moving_box(recording):
    """The rectangle round all pixels that change at all: what must be inside."""
    changes = (recording.astype(int).max(axis=0) - recording.min(axis=0)) > 8
    rows, columns = np.flatnonzero(changes.any(axis=1)), np.flatnonzero(changes.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("changes", some_of([{}, {"is_ticking": True}, {"is_tracing": True}]))
def test_box_contains_all_motion_of_the_recording_and_nothing_of_the_screen(phantom, changes):
    told = []
    left, top, width, height = find_box(video_of(screen(phantom, **changes)), "auto", told.append)
    inner = moving_box(phantom)
    assert left <= LEFT + inner[0] + 2
    assert top <= TOP + inner[1] + 2
    assert left + width >= LEFT + inner[2] - 2
    assert top + height >= TOP + inner[3] - 2
    # A hundredth of the frame is left round it.
    assert left >= LEFT - 6
    assert top >= TOP - 6
    assert left + width <= LEFT + SIDE + 6
    assert top + height <= TOP + SIDE + 6
    assert told == []


def test_recording_that_fills_the_frame_is_kept_whole(phantom):
    inner = moving_box(phantom)
    left, top, width, height = find_box(video_of(phantom), "auto", print)
    assert left <= inner[0]
    assert top <= inner[1]
    assert left + width >= inner[2]
    assert top + height >= inner[3]


def test_box_of_what_was_cut_out_is_nearly_all_of_it(phantom):
    box = find_box(video_of(screen(phantom)), "auto", print)
    again = find_box(video_of([cut(frame, box) for frame in screen(phantom)]), "auto", print)
    assert again[2] * again[3] > 0.9 * box[2] * box[3]


def test_two_recordings_side_by_side_are_both_kept(phantom):
    small = phantom[:, ::2, ::2]
    frames = [np.pad(np.concatenate([a, np.zeros_like(a), a[::-1]], 1), 20) for a in small]
    left, _, width, _ = find_box(video_of(frames), "auto", print)
    assert width > 2.5 * SIDE / 2 - 10
    assert left < 20 + 10


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([np.full((40, 40), 9, np.uint8)], "nothing moves"),
        ([np.full((40, 40), 9, np.uint8)] * 5, "nothing moves"),
        ([np.pad(np.full((3, 3), 90 * k, np.uint8), 60) for k in range(3)], "too small"),
    ],
)
def test_without_a_visible_recording_the_whole_frame_is_kept_with_a_warning(frames, reason):
    told = []
    assert find_box(video_of(frames), "auto", told.append) is None
    assert [reason in text for text in told] == [True]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
@settings(max_examples=60)
def test_box_lies_inside_the_frame_and_is_never_empty(seed, height, width, num_frames):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (num_frames, height, width), np.uint8)
    frames[:, rng.random((height, width)) < rng.random()] = 7
    box = find_box(video_of(frames), "auto", lambda _: None)
    if box is not None:
        left, top, box_width, box_height = box
        assert left >= 0 and top >= 0 and box_width > 0 and box_height > 0  # noqa: PT018
        assert left + box_width <= width
        assert top + box_height <= height


def test_frames_of_changing_size_are_kept_whole_with_a_warning(phantom):
    told = []
    assert find_box(video_of([*phantom, *np.zeros((3, 20, 30), np.uint8)]), "auto", told.append) is None
    assert told == ["its frames change in size: the whole frame is kept"]


def above_thin_edge():
    """Noise, and below it ten rows of dark in a frame of 200."""
    frames = np.zeros((120, 200, 200), np.uint8)
    frames[:, :190] = np.random.default_rng(0).integers(0, 256, (120, 190, 200))
    return frames


def test_thin_edge_in_which_nothing_is_printed_is_kept():
    frames = above_thin_edge()
    frames[:, 197:, 40:60] = frames[:, :3, 40:60]  # tissue beyond a shadow
    assert find_box(video_of(frames), "auto", print) == (0, 0, 200, 200)


@pytest.mark.parametrize("shown", [slice(None), slice(2), slice(40, None)], ids=["always", "early", "late"])
def test_thin_edge_in_which_something_is_printed_is_cut_off(shown):
    frames = above_thin_edge()
    frames[shown, 197:, 10:60:2] = 200
    left, top, width, height = find_box(video_of(frames), "auto", print)
    assert (left, top, width) == (0, 0, 200)
    assert 190 <= height <= 194


def test_thick_black_edge_is_cut_off():
    frames = np.pad(above_thin_edge()[:9], ((0, 0), (30, 30), (30, 30)))
    box = find_box(video_of(frames), "auto", print)
    assert box == pytest.approx((30, 30, 200, 190), abs=8)
    assert box[0] > 25


def test_inverted_video_has_the_box_of_the_upright_one(phantom):
    for frames in (list(screen(phantom)), above_thin_edge()):
        inverted = video_of([255 - frame for frame in frames], is_inverted=True)
        assert find_box(inverted, "auto", print) == find_box(video_of(frames), "auto", print)


def test_no_more_frames_than_needed_are_read():
    frames = np.random.default_rng(0).integers(0, 256, (MOST_FRAMES + 9, 8, 8), np.uint8)
    video = video_of(frames)
    left = iter(video.frames())
    find_box(replace(video, frames=lambda: left), "auto", print)
    assert sum(1 for _ in left) == 9


def test_deep_pixels_give_the_same_box(phantom):
    expected = find_box(video_of(screen(phantom)), "auto", print)
    deep = [frame.astype(np.int16) * 100 - 3000 for frame in screen(phantom)]
    assert find_box(video_of(deep), "auto", print) == expected


def test_box_that_is_named_is_cut_out():
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert find_box(None, "1,2,3,2", print) == (1, 2, 3, 2)
    np.testing.assert_array_equal(cut(pixels, (1, 2, 3, 2)), pixels[2:4, 1:4])
    np.testing.assert_array_equal(cut(pixels, None), pixels)
    assert find_box(None, "none", print) is None


@pytest.mark.parametrize("box", [(3, 0, 3, 1), (0, 3, 1, 2), (5, 0, 1, 1)])
def test_box_that_reaches_beyond_the_frame_is_refused(box):
    reason = r"frames of 5x4 pixels do not contain the crop \d,\d,\d,\d "
    with pytest.raises(DecodeError, match=reason) as caught:
        cut(np.zeros((4, 5), np.uint8), box)
    assert caught.value.kind == "crop-outside"


def test_an_invalid_crop_is_refused():
    with pytest.raises(ConfigError, match="crop"):
        find_box(None, "middle", print)
