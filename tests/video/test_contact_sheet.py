"""Contact sheets are pictures of the right frames in the right places, dark ones shown brighter."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from tests.thorough import some_of
from vidlat.errors import InputError, ShapeError
from vidlat.video import contact_sheet as module
from vidlat.video.contact_sheet import COLUMNS, Row, contact_sheet, evenly_spaced, frames_to_show

CELL = 256
MARK = (242, 179, 61)


def video(num_frames, height=32, width=32):
    """Every frame evenly gray, brighter frame by frame from 205 on: bright enough to be shown as it is."""
    return np.broadcast_to(
        (205 + np.arange(num_frames, dtype=np.uint8))[:, None, None], (num_frames, height, width)
    )


def sheet(path):
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def count(pixels, gray):
    return int((pixels == gray).all(-1).sum())


def order(pixels, grays):
    """Left edges of the cells of these gray values."""
    return [int((pixels == gray).all(-1).any(0).argmax()) for gray in grays]


def test_some_frames_are_spread_over_the_video_and_some_follow_one_another(tmp_path):
    contact_sheet([("a.mp4", video(41))], tmp_path / "a.png")
    pixels = sheet(tmp_path / "a.png")
    spread, in_a_row = [205, 225, 245], [213, 214, 215, 216]
    assert [gray for gray in range(205, 246) if count(pixels, gray) == CELL**2] == sorted(spread + in_a_row)
    lefts = order(pixels, spread + in_a_row)
    assert lefts == sorted(lefts)
    gaps = np.diff(lefts)
    assert set(gaps[[0, 1, 3, 4, 5]]) == {min(gaps)}
    assert gaps[2] > min(gaps)  # between the two kinds


@given(num_frames=st.integers(1, 10**6), frame_step=st.none() | st.integers(1, 300))
def test_frames_to_show_are_of_the_video_and_lie_on_both_sides_of_a_border(num_frames, frame_step):
    numbers = frames_to_show(num_frames, frame_step)
    assert len(numbers) == min(num_frames, COLUMNS)
    assert set(numbers) <= set(range(num_frames))
    assert {0, num_frames - 1} <= set(numbers)
    in_a_row = numbers[-4:]
    assert in_a_row == list(range(in_a_row[0], in_a_row[0] + len(in_a_row)))
    if frame_step and num_frames > max(frame_step, COLUMNS):
        assert any(number % frame_step == 0 for number in in_a_row[1:])


def test_a_border_of_stacks_is_marked_between_its_frames_and_nowhere_else(tmp_path):
    contact_sheet([Row("a.mp4", video(41), frame_step=8)], tmp_path / "a.png")
    pixels = sheet(tmp_path / "a.png")[24 + 40 : 24 + 200]
    (columns,) = np.nonzero((pixels == MARK).all((0, 2)))
    before, after = order(pixels, [205 + 7, 205 + 8])
    assert len(columns)
    assert ((before + CELL <= columns) & (columns < after)).all()
    contact_sheet([Row("a.mp4", video(41))], tmp_path / "b.png")
    assert not count(sheet(tmp_path / "b.png"), MARK)


def test_more_than_there_are_is_all_of_them_whatever_the_number():
    assert evenly_spaced(5, 6) == evenly_spaced(5, 10**18) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_short_videos_show_every_frame_once(tmp_path, num_frames):
    contact_sheet([("a.mp4", video(num_frames))], tmp_path / "a.png")
    pixels = sheet(tmp_path / "a.png")
    assert [count(pixels, 205 + index) for index in range(num_frames)] == [CELL**2] * num_frames


def test_reconstruction_stands_under_its_source(tmp_path):
    source = video(16)
    contact_sheet([Row("a.mp4", source, (source / 255 - 100 / 255).astype(np.float32))], tmp_path / "a.png")
    pixels = sheet(tmp_path / "a.png")
    above, below = (np.argwhere((pixels == gray).all(-1)) for gray in (220, 120))
    assert len(above) == len(below) == CELL**2
    assert below[:, 0].min() > above[:, 0].max()
    assert (below[:, 1] == above[:, 1]).all()


def test_floats_and_bytes_of_one_video_look_the_same(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 40), np.uint8)
    contact_sheet([("a", frames)], tmp_path / "a.png")
    contact_sheet([("a", frames / np.float32(255))], tmp_path / "b.png")
    np.testing.assert_array_equal(sheet(tmp_path / "a.png"), sheet(tmp_path / "b.png"))


def test_wide_frames_keep_their_shape(tmp_path):
    contact_sheet([("a.mp4", video(1, 30, 60))], tmp_path / "a.png")
    found = np.argwhere((sheet(tmp_path / "a.png") == 205).all(-1))
    assert tuple(np.ptp(found, 0) + 1) == (120, 240)


@pytest.mark.parametrize(("side", "scale"), [(20, 12), (64, 4), (128, 2), (129, 1), (256, 1)])
def test_pixels_of_small_frames_are_squares(tmp_path, side, scale):
    frame = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
    contact_sheet([("a.mp4", frame)], tmp_path / "a.png")
    left = 24 + (CELL - scale * side) // 2
    found = sheet(tmp_path / "a.png")[58 : 58 + scale * side, left : left + scale * side]
    np.testing.assert_array_equal(
        found, np.kron(frame[0], np.ones((scale, scale), np.uint8))[..., None] + [0] * 3
    )


def test_a_sheet_fits_the_width_of_a_screen(tmp_path):
    contact_sheet([("a.mp4", video(30))], tmp_path / "a.png")
    assert sheet(tmp_path / "a.png").shape[1] <= 1920


def notes(monkeypatch, *arguments, **options):
    """The gray levels in cells, and what is said beside the labels, of a sheet."""
    said = []
    monkeypatch.setattr(module, "cut_to_width", lambda _, text, *__: said.append(text) or text)
    contact_sheet(*arguments, **options)
    return said[::2]


def test_a_dark_video_and_its_reconstruction_are_shown_in_one_window_which_is_told(tmp_path, monkeypatch):
    dark, below = np.full((1, 32, 32), 50, np.uint8), np.full((1, 32, 32), 90, np.uint8)
    dark[:, :2] = 102  # 1 of 16: the 99.5th percentile, which becomes white
    said = notes(monkeypatch, [Row("a.mp4", dark, below)], tmp_path / "a.png")
    assert said == ["1 frame, reconstruction below; gray levels 0 to 102 shown as 0 to 255"]
    pixels = sheet(tmp_path / "a.png")
    assert count(pixels, 125) == CELL * (CELL - 16)
    assert count(pixels, 225) == CELL**2


def test_rows_share_a_window_or_have_one_each(tmp_path, monkeypatch):
    rows = [("a", np.full((1, 8, 8), 80, np.uint8)), ("b", np.full((1, 8, 8), 160, np.uint8))]
    shared, own = (
        notes(monkeypatch, rows, tmp_path / "a.png", one_window=one_window) for one_window in (True, False)
    )
    assert ["0 to 160" in note for note in shared] == [True, True]
    assert ["0 to 80" in note for note in own] == [True, False]
    (bright,) = notes(monkeypatch, [("a", video(1))], tmp_path / "b.png")
    assert bright == "1 frame"


def test_noise_of_a_black_video_is_not_shown_as_white(tmp_path):
    contact_sheet([("a.mp4", np.full((1, 16, 16), 4, np.uint8))], tmp_path / "a.png")
    assert count(sheet(tmp_path / "a.png"), 16) == CELL**2


def test_rows_follow_one_another_on_a_dark_ground_with_bright_labels(tmp_path):
    contact_sheet([("first", video(1)), ("second", video(1) + np.uint8(1))], tmp_path / "a.png")
    pixels = sheet(tmp_path / "a.png")
    first, second = (np.argwhere((pixels == gray).all(-1))[:, 0] for gray in (205, 206))
    assert second.min() > first.max()
    assert pixels[:10].max() < 40
    assert pixels[: first.min()].max() > 200


@pytest.mark.parametrize(
    "label", some_of(["a/very/long/" + "path/" * 100 + "end.mp4", "", "two\nlines.mp4", "é漢字.mp4"])
)
def test_any_label_leaves_the_size_of_the_sheet_alone(tmp_path, label):
    contact_sheet([("short", video(3))], tmp_path / "a.png")
    contact_sheet([(label, video(3))], tmp_path / "b.png")
    assert sheet(tmp_path / "a.png").shape == sheet(tmp_path / "b.png").shape


@pytest.mark.parametrize(
    "row",
    [
        Row("a.mp4", np.zeros((0, 8, 8), np.uint8)),
        Row("a.mp4", np.zeros((8, 8), np.uint8)),
        Row("a.mp4", video(4), video(5)),
    ],
)
def test_rows_that_cannot_be_shown_are_refused_by_name(tmp_path, row):
    with pytest.raises(ShapeError, match=r"a\.mp4: expected videos of one length"):
        contact_sheet([row], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_no_row_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="at least one video"):
        contact_sheet([], tmp_path / "a.png")


def test_a_failed_write_leaves_no_draft(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError):
        contact_sheet([("a.mp4", video(2))], tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("label", ["Müller Straße/Übung é", "Mu\u0308ller Straße/U\u0308bung e\u0301"])
def test_letters_are_drawn_without_the_accents_that_the_font_lacks(tmp_path, label):
    for name, text in (("accents", label), ("plain", "Muller Strasse/Ubung e")):
        contact_sheet([Row(text, np.zeros((1, 8, 8), np.uint8))], tmp_path / name)
    assert (tmp_path / "accents").read_bytes() == (tmp_path / "plain").read_bytes()


def test_a_note_of_any_text_stays_inside_beside_its_label(tmp_path):
    """A name of a file, that is: with a line break, or longer than the sheet is wide."""
    for name, note in {"plain": "a b.mp4", "broken": "a\nb.mp4", "long": "x" * 500 + ".mp4"}.items():
        contact_sheet([Row("source", video(1), note=note)], tmp_path / f"{name}.png")
    plain, broken, long = (sheet(tmp_path / f"{name}.png") for name in ("plain", "broken", "long"))
    np.testing.assert_array_equal(plain, broken)
    np.testing.assert_array_equal(plain[:, :300], long[:, :300])  # the label
