"""The steps from a video to what the VAE sees, in their order, and how often a video is read for them."""

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from benchmarks.phantom import make_phantom
from tests.video.made import video_of
from vidlat.config import Preprocessing
from vidlat.errors import DecodeError
from vidlat.types import WHOLE, Frame
from vidlat.video import container
from vidlat.video.intensity import to_unit
from vidlat.video.preprocessing import prepare_video, to_square
from vidlat.video.reader import open_video
from vidlat.video.writer import write_video


def prepare(video, told=None, **settings):
    how = Preprocessing(**{"size": 8, "fit": "stretch"} | settings)
    return prepare_video(video, how, (told if told is not None else []).append)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (6, 20, 30), np.uint8)


def test_plain_video_is_read_once_and_only_resized(noise):
    video = video_of(noise)
    prepared = prepare(video)
    assert video.frames.num_reads == 0
    frames = list(prepared.frames())
    assert video.frames.num_reads == 1
    assert (prepared.value_range, prepared.box) == ((0.0, 255.0), None)
    for frame, pixels in zip(frames, noise, strict=True):
        np.testing.assert_array_equal(frame.pixels, to_square(to_unit(pixels, (0, 255)), 1.0, 8, "stretch"))
        assert (frame.height, frame.width) == (20, 30)
    assert [frame.pts_seconds for frame in frames] == [k / 25 for k in range(6)]


def test_range_is_that_of_the_kept_part(noise):
    noise[:, 10:] = 0
    noise[:, :10] = noise[:, :10] // 4 + 100
    noise[0, 0, 0] = 255
    prepared = prepare(video_of(noise), crop="0,1,30,9", intensity="minmax")
    kept = noise[:, 1:10]
    assert prepared.value_range == (kept.min(), kept.max())
    frames = [frame.pixels for frame in prepared.frames()]
    expected = [to_square(to_unit(pixels, prepared.value_range), 1.0, 8, "stretch") for pixels in kept]
    np.testing.assert_array_equal(frames, expected)


def test_reported_size_is_that_of_the_source(noise):
    frame = next(prepare(video_of(noise), crop="2,3,4,5").frames())
    assert (frame.height, frame.width) == (20, 30)


def test_rate_is_changed_by_time(noise):
    frames = list(prepare(video_of(noise), fps=12.5).frames())
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0, 0.08, 0.16])
    np.testing.assert_array_equal(frames[1].pixels, list(prepare(video_of(noise)).frames())[2].pixels)


def test_inverted_video_is_inverted_back(noise):
    upright = [frame.pixels for frame in prepare(video_of(noise)).frames()]
    turned = [frame.pixels for frame in prepare(video_of(noise, is_inverted=True)).frames()]
    np.testing.assert_allclose(np.add(upright, turned), 1, atol=1e-6)


def test_damage_is_passed_on(noise):
    damaged = [Frame(pixels=pixels, pts_seconds=None, is_damaged=k == 2) for k, pixels in enumerate(noise)]
    video = video_of(noise)
    object.__setattr__(video, "frames", lambda: iter(damaged))
    assert [frame.is_damaged for frame in prepare(video).frames()] == [k == 2 for k in range(6)]


def test_wide_pixels_are_made_square(noise):
    video = video_of(noise)
    wide = [Frame(pixels=pixels, pts_seconds=None, sample_aspect_ratio=2.0) for pixels in noise]
    object.__setattr__(video, "frames", lambda: iter(wide))
    got = next(prepare(video, fit="letterbox").frames()).pixels
    assert (got[:2] == 0).all()  # shown 20 high and 60 wide: two of eight rows and a bit at each end
    np.testing.assert_array_equal(got, to_square(to_unit(noise[0], (0, 255)), 2.0, 8, "letterbox"))


@pytest.mark.parametrize(
    ("settings", "num_passes"),
    [({}, 0), ({"intensity": "percentile"}, 1), ({"intensity": "minmax"}, 1), ({"crop": "auto"}, 1),
     ({"crop": "auto", "intensity": "minmax"}, 2)],
)  # fmt: skip
def test_on_frame_is_called_once_for_each_frame_of_the_analysis(noise, settings, num_passes):
    told = []
    how = Preprocessing(size=8, fit="crop", **settings)
    prepare_video(video_of(noise), how, print, lambda: told.append(1))
    assert len(told) == num_passes * len(noise)


@pytest.mark.parametrize("settings", [{"intensity": "percentile"}, {"intensity": "minmax"}, {"crop": "auto"}])
def test_on_frame_is_called_for_each_frame_of_the_analysis_and_may_stop_it(noise, settings):
    def end():
        raise DecodeError("took too long", "time-limit")

    with pytest.raises(DecodeError, match="took too long"):
        prepare_video(video_of(noise), Preprocessing(size=8, fit="crop", **settings), print, end)
    prepare_video(video_of(noise), Preprocessing(size=8, fit="crop"), print, end)  # nothing is read


def test_each_warning_is_given_once_however_often_the_frames_are_read(noise):
    told = []
    prepared = prepare(video_of(noise, times=[None] * 6), told, fps=12.5)
    assert len(list(prepared.frames())) == len(list(prepared.frames())) == 6
    assert told == ["has no times: all of its frames are used, at no set rate"]


def test_crop_that_does_not_fit_a_later_frame_is_a_failure(noise):
    frames = [*noise, np.zeros((4, 4), np.uint8)]
    with pytest.raises(DecodeError, match="4x4 pixels"):
        list(prepare(video_of(frames), crop="0,0,8,8").frames())


def test_plain_file_is_opened_once(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", make_phantom("heart", 0, 9, 32, 32, 25), 25)
    opened, real = [], container._opened
    monkeypatch.setattr(container, "_opened", lambda path: opened.append(path) or real(path))
    prepared = prepare(open_video(tmp_path / "a.mp4", WHOLE, print))
    first = [frame.pixels for frame in prepared.frames()]
    assert (len(first), len(opened)) == (9, 1)
    np.testing.assert_array_equal([frame.pixels for frame in prepared.frames()], first)
    assert len(opened) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([0], "blank: every pixel of every frame is 0"),
        ([7], "blank: every pixel of every frame is 7"),
        ([0, 3], "holds only the values 0, 3: a mask rather than a video?"),
        (range(16), "holds only the values 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15: a mask"),
        (range(17), None),
        (range(100), None),
    ],
)
def test_masks_and_blank_videos_are_told_at_their_end(dtype, levels, said):
    """The values are spread over the frames, so that no frame alone tells them."""
    levels = list(levels) * (1 if len(levels) > 9 else 10)
    frames = [np.full((8, 8), level, dtype) for level in levels]
    told = []
    prepared = prepare_video(video_of(frames), Preprocessing(size=8), told.append)
    assert len(list(prepared.frames())) == len(frames)
    assert [text[: len(said)] for text in told] == [said] if said else told == []


def drawn_organs(num_labels, num_frames=5, size=112, seed=0):
    """A mask (T, H, W): ellipses that move, some over others."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    mask = np.zeros((num_frames, size, size), np.uint8)
    for label in range(1, num_labels + 1):
        (height, width), (y, x) = random.uniform(0.08, 0.2, 2), random.uniform(0.2, 0.8, 2)
        for t in range(num_frames):
            mask[t][((rows - y - t / size) / height) ** 2 + ((columns - x) / width) ** 2 < 1] = label
    return mask


def told_of(video):
    told = []
    list(prepare(video, told).frames())
    return told


@pytest.mark.parametrize("num_labels", [1, 2, 3, 8])
def test_a_mask_of_organs_is_told(num_labels):
    (told,) = told_of(video_of(drawn_organs(num_labels)))
    assert "a mask rather than a video?" in told


def test_a_dark_lossy_clip_is_no_mask(tmp_path):
    """Of few gray levels, most of its pixels black."""
    dark = make_phantom("heart", 0, 9, 128, 128, 25) // 28
    write_video(tmp_path / "dark.mp4", dark, 25)
    video = open_video(tmp_path / "dark.mp4", WHOLE, print)
    assert 2 < len(np.unique([frame.pixels for frame in video.frames()])) <= 16
    assert told_of(video) == []


def test_a_scan_of_few_gray_levels_is_no_mask():
    pixels = dcmread(get_testdata_file("CT_small.dcm")).pixel_array.astype(float)
    few = np.floor(12 * (pixels - pixels.min()) / (np.ptp(pixels) + 1)).astype(np.int16)
    assert len(np.unique(few)) == 12
    assert told_of(video_of([few])) == []
