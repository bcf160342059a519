"""Where clips come from: windows of a cache, noise like them, files of a folder."""

from dataclasses import replace

import numpy as np
import pytest

from tests.test_files import make_special
from vidlat.errors import InputError
from vidlat.evaluate.samples.clips import Clip, folder_clips, moving_and_still, read_clip, videos_in
from vidlat.evaluate.samples.real_clips import RealClips, spread_windows
from vidlat.pipeline.decode_videos import decode_video, load_vae_of, to_gray_levels
from vidlat.store.reader import open_cache
from vidlat.train.data.windows import WindowShape
from vidlat.video.writer import write_array, write_video

LENGTHS = {"a.mp4": 40, "b.mp4": 9, "c.mp4": 17, "d.mp4": 3}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, encode_here, make_videos):
    folder = tmp_path_factory.mktemp("clips")
    return open_cache(encode_here(make_videos(folder / "videos", LENGTHS), folder / "latents.zarr"))


@pytest.fixture(scope="module")
def vae(cache, small_vae):
    return load_vae_of(cache.schema, vae=str(small_vae), device="cpu", batch=2)


def spread(cache, num, frames=8):
    shape = WindowShape.of_clip(frames, cache.schema.timing)
    windows = spread_windows(list(cache.records().values()), shape, num)
    return [(window.record.video_id, shape.timing.frame_at(window.start)) for window in windows]


def test_windows_are_spread_over_videos_first(cache):
    assert [video_id for video_id, _ in spread(cache, 2)] == ["a.mp4", "c.mp4"]  # of the long enough
    assert [video_id for video_id, _ in spread(cache, 4)] == ["a.mp4", "a.mp4", "b.mp4", "c.mp4"]
    (_, first), (_, second), *_ = spread(cache, 4)
    assert second - first in (16, 20)  # half of the nine starts apart
    assert [video_id for video_id, _ in spread(cache, 6)] == ["a.mp4"] * 3 + ["b.mp4"] + ["c.mp4"] * 2


@pytest.mark.parametrize("num_each", [1, 2, 4])
def test_few_windows_are_drawn_over_the_whole_length_of_videos(num_each, cache):
    """Each of the nine starts of 450 copies of a video is drawn as often as any other, within four sigma."""
    record, shape = cache.records()["a.mp4"], WindowShape.of_clip(8, cache.schema.timing)
    copies = [replace(record, video_id=f"{number}.mp4") for number in range(450)]
    windows = spread_windows(copies, shape, 450 * num_each)
    counts = np.bincount([shape.timing.frame_at(window.start) // 4 for window in windows], minlength=9)
    assert len(windows) == len(set((window.record.video_id, window.start) for window in windows))
    assert len(counts) == 9
    share = num_each / 9
    np.testing.assert_allclose(counts, 450 * share, atol=4 * np.sqrt(450 * share * (1 - share)))
    alone = spread_windows(copies[7:8], shape, num_each)  # no matter which videos there are
    assert alone == [window for window in windows if window.record.video_id == "7.mp4"]


def test_windows_hold_whole_stacks_of_real_frames_alone_and_none_twice(cache):
    every = spread(cache, 1000)
    assert every == [("a.mp4", 4 * n) for n in range(9)] + [("b.mp4", 0)] + [
        ("c.mp4", 4 * n) for n in range(3)
    ]
    assert spread(cache, 5, frames=44) == []


def test_real_clips_are_the_decoded_stretch_of_their_video(cache, vae):
    shape = WindowShape.of_clip(8, cache.schema.timing)
    windows = spread_windows(list(cache.records().values()), shape, 4)
    subjects = {video_id: f"patient of {video_id}" for video_id in LENGTHS}
    clips = RealClips(cache, vae, shape, 8).clips(windows, subjects, {"a.mp4": {"view": "a4c"}})
    assert [clip.group for clip in clips][:3] == ["subject patient of a.mp4"] * 2 + [
        "subject patient of b.mp4"
    ]
    assert [clip.labels for clip in clips] == [{"view": "a4c"}] * 2 + [{}, {}]
    whole = to_gray_levels(np.stack(list(decode_video(cache, vae, "a.mp4"))))
    first = shape.timing.frame_at(windows[1].start)
    stretch = whole[first : first + 8].astype(int)
    np.testing.assert_allclose(clips[1].frames().astype(int), stretch, atol=1)
    still = moving_and_still(clips)[1][1].frames()
    np.testing.assert_array_equal(still, clips[1].frames()[[0] * 8])
    assert not np.array_equal(still, clips[1].frames())


def test_a_clip_that_stands_still_too_is_decoded_once():
    decoded = []

    def decode():
        decoded.append(np.random.default_rng(0).integers(0, 256, (5, 6, 7), np.uint8))
        return decoded[-1]

    moving, still = moving_and_still([Clip(name="a", group="a", labels={}, frames=decode)])
    np.testing.assert_array_equal(moving[0].frames(), decoded[0])
    np.testing.assert_array_equal(still[0].frames(), decoded[0][[0] * 5])
    assert len(decoded) == 1


def test_noise_has_the_mean_and_the_covariance_of_the_latents_channels(cache, vae, monkeypatch):
    shape = WindowShape.of_clip(8, cache.schema.timing)
    windows = spread_windows(list(cache.records().values()), shape, 13)
    clips, drawn = RealClips(cache, vae, shape, 8), []
    monkeypatch.setattr(RealClips, "_decode", lambda _, latents: drawn.append(latents))
    noise = clips.noise(windows, 400, seed=3)
    for clip in noise:
        clip.frames()
    real, found = (
        np.concatenate([each.reshape(4, -1) for each in latents], axis=1)
        for latents in ([clips.latents(window) for window in windows], drawn)
    )
    spread_of = real.std(1)
    np.testing.assert_allclose((found.mean(1) - real.mean(1)) / spread_of, 0, atol=0.05)
    np.testing.assert_allclose((np.cov(found) - np.cov(real)) / np.outer(spread_of, spread_of), 0, atol=0.05)
    noise[0].frames()
    np.testing.assert_array_equal(drawn[0], drawn[-1])


@pytest.fixture
def folder(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (10, 4, 4), np.uint8).repeat(4, 1).repeat(4, 2)
    write_array(tmp_path / "b.npy", frames)
    write_video(tmp_path / "a.mp4", frames, 25)
    (tmp_path / "contact_sheet.png").write_bytes(b"no video")
    (tmp_path / ".partial.npy").mkdir()
    return tmp_path, frames


def test_videos_of_a_folder_are_clips_as_they_are(folder):
    path, frames = folder
    files = videos_in(path)
    assert [file.name for file in files] == ["a.mp4", "b.npy"]
    clips = folder_clips(files, 16, 8, [{}, {"view": "a4c"}])
    np.testing.assert_array_equal(clips[1].frames(), frames[:8])
    np.testing.assert_allclose(clips[0].frames().astype(int), frames[:8].astype(int), atol=8)
    assert len({clip.group for clip in clips}) == 2
    assert clips[1].labels == {"view": "a4c"}


def test_videos_of_another_size_are_resized(tmp_path):
    grays = np.arange(0, 200, 25, dtype=np.uint8)
    write_array(tmp_path / "a.npy", np.broadcast_to(grays[:, None, None], (8, 20, 30)).copy())
    np.testing.assert_array_equal(
        read_clip(tmp_path / "a.npy", 12, 8), np.broadcast_to(grays[:, None, None], (8, 12, 12))
    )


def test_what_is_no_clip_is_refused_in_one_line(folder, tmp_path):
    path, _ = folder
    with pytest.raises(InputError, match=r"b\.npy: has 10 frames; expected at least 12"):
        read_clip(path / "b.npy", 16, 12)
    (path / "c.mp4").write_bytes(b"no video at all")
    with pytest.raises(InputError, match=r"c\.mp4: cannot be read as a video"):
        read_clip(path / "c.mp4", 16, 8)
    make_special("a named pipe", path / "d.npy")
    with pytest.raises(InputError, match=r"d\.npy: cannot be read as a video: is a named pipe"):
        read_clip(path / "d.npy", 16, 8)
    with pytest.raises(InputError, match=r"gone: cannot be read as a folder of videos"):
        videos_in(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no video; expected files such as \.npy"):
        videos_in(tmp_path / "empty")
