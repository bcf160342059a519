"""Contact sheets are pictures of the right frames in the right places."""

import numpy as np
import pytest
from PIL import Image

from vidlat.errors import InputError, ShapeError
from vidlat.video.contact_sheet import Row, contact_sheet, evenly_spaced


def video(num_frames, height=32, width=32):
    """Every frame evenly gray, brighter frame by frame from 100 on."""
    return np.broadcast_to(
        (100 + np.arange(num_frames, dtype=np.uint8))[:, None, None], (num_frames, height, width)
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


def test_frames_are_evenly_spaced_with_first_and_last_and_in_order(tmp_path):
    contact_sheet([("a.mp4", video(50))], tmp_path / "a.png", columns=8)
    pixels = sheet(tmp_path / "a.png")
    expected = [100 + index for index in (0, 7, 14, 21, 28, 35, 42, 49)]
    cells = [gray for gray in range(100, 150) if count(pixels, gray) == 128 * 128]
    assert cells == expected
    lefts = order(pixels, expected)
    assert lefts == sorted(lefts)
    assert len(set(lefts)) == 8


def test_more_than_there_are_is_all_of_them_whatever_the_number():
    assert evenly_spaced(5, 6) == evenly_spaced(5, 10**18) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_short_videos_show_every_frame_once(tmp_path, num_frames):
    contact_sheet([("a.mp4", video(num_frames))], tmp_path / "a.png")
    pixels = sheet(tmp_path / "a.png")
    assert [count(pixels, 100 + index) for index in range(num_frames)] == [128 * 128] * num_frames


def test_reconstruction_stands_under_its_source(tmp_path):
    source = video(16)
    contact_sheet([Row("a.mp4", source, (source / 255 + 100 / 255).astype(np.float32))], tmp_path / "a.png")
    pixels = sheet(tmp_path / "a.png")
    above, below = (np.argwhere((pixels == gray).all(-1)) for gray in (115, 215))
    assert len(above) == len(below) == 128 * 128
    assert below[:, 0].min() > above[:, 0].max()
    assert (below[:, 1] == above[:, 1]).all()


def test_floats_and_bytes_of_one_video_look_the_same(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 40), np.uint8)
    contact_sheet([("a", frames)], tmp_path / "a.png")
    contact_sheet([("a", frames / np.float32(255))], tmp_path / "b.png")
    np.testing.assert_array_equal(sheet(tmp_path / "a.png"), sheet(tmp_path / "b.png"))


def test_wide_frames_keep_their_shape(tmp_path):
    contact_sheet([("a.mp4", video(1, 30, 60))], tmp_path / "a.png")
    found = np.argwhere((sheet(tmp_path / "a.png") == 100).all(-1))
    assert tuple(np.ptp(found, 0) + 1) == (64, 128)


def test_rows_follow_one_another_on_a_dark_ground_with_bright_labels(tmp_path):
    contact_sheet([("first", video(1)), ("second", video(1) + np.uint8(1))], tmp_path / "a.png")
    pixels = sheet(tmp_path / "a.png")
    first, second = (np.argwhere((pixels == gray).all(-1))[:, 0] for gray in (100, 101))
    assert second.min() > first.max()
    assert pixels[:10].max() < 40
    assert pixels[: first.min()].max() > 200


@pytest.mark.parametrize(
    "label", ["a/very/long/" + "path/" * 100 + "end.mp4", "", "two\nlines.mp4", "é漢字.mp4"]
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
