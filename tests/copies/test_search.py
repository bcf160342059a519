"""The nearest training window against all windows, cut out and compared one by one in float64."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.thorough import some_of
from vidlat.copies import held_out, training_windows
from vidlat.copies.search import CopySearch
from vidlat.copies.training_windows import TrainingWindows
from vidlat.errors import TrainError

VIDEOS = {f"{n}.mp4": num_frames for n, num_frames in enumerate([5, 12, 16, 23, 40, 64, 8, 31, 44, 9])}
TIMINGS = pytest.mark.parametrize(
    "times",
    [
        {"stack": 4, "frames": 8},
        {"stack": 8, "overlap": 4, "frames": 12},  # calls share latent frames
        {"stack": 8, "overlap": 2, "frames": 14},  # calls share frames alone
    ],
)


def all_windows(run, cache, video_ids):
    """(video, start, window (L, t, h, w) whitened float64) of each place where training may start."""
    shape, timing = run.window_shape(), cache.schema.timing
    for video_id in video_ids:
        num_frames = cache.records()[video_id].num_frames
        mean = run.whitening.whiten(cache.read_latents(video_id).mean.astype(np.float64))
        mean = mean[:, : timing.num_valid(num_frames)]
        num_starts = max(timing.num_whole_calls(num_frames) - shape.num_stacks, 0) + 1
        for start in (call * timing.latent_step for call in range(num_starts)):
            window = mean[:, start : start + shape.num_latent_frames]
            padding = [window[:, -1:]] * (shape.num_latent_frames - window.shape[1])
            yield video_id, start, np.concatenate([window, *padding], axis=1)


def all_distances(clip, windows):
    """Of the signatures of a clip and of each window; the mean frame is that of the first frames, all few."""

    def pooled(latents):
        return latents.reshape(*latents.shape[:2], 8, 2, 8, 2).mean((3, 5))

    mean = np.mean([pooled(window[:, :1]) for _, _, window in windows], axis=0)

    def signature(latents):
        centred = pooled(latents) - mean
        centred = centred - centred.mean((1, 2, 3), keepdims=True)
        return centred / np.linalg.norm(centred)

    of_clip = signature(clip)
    return np.array([np.linalg.norm(of_clip - signature(window)) for _, _, window in windows])


@pytest.mark.parametrize("block_bytes", some_of([1, 20_000, 2**25]))
@TIMINGS
def test_the_nearest_window_and_its_distance_are_those_of_all_windows(
    times, block_bytes, make_run, monkeypatch
):
    monkeypatch.setattr(training_windows, "BLOCK_BYTES", block_bytes)
    run, cache = make_run(VIDEOS, **times)
    windows = list(all_windows(run, cache, run.training))
    random = torch.Generator().manual_seed(0)
    clips = [torch.randn(run.latent_shape(), generator=random) for _ in range(5)]
    clips += [torch.from_numpy(window).float() for _, _, window in windows[::3]]
    search = CopySearch(run, cache)
    assert len(search.windows) == len(windows)
    for _ in range(2):  # from the cache, then from memory
        for clip, match in zip(clips, search.nearest(clips), strict=True):
            distances = all_distances(clip.double().numpy(), windows)
            video_id, start, _ = windows[int(distances.argmin())]
            assert (match.video_id, match.place.start) == (video_id, start)
            assert match.distance == pytest.approx(distances.min(), abs=2e-6)


@TIMINGS
def test_held_out_windows_are_compared_as_they_are_cut_for_training(times, make_run):
    run, cache = make_run(VIDEOS, validation_fraction=0.4, **times)
    windows = list(all_windows(run, cache, run.training))
    expected = {
        (video_id, start): all_distances(window, windows).min()
        for video_id, start, window in all_windows(run, cache, run.validation)
    }
    found = CopySearch(run, cache).calibrate()
    assert len(run.validation) > 1
    assert {(place.record.video_id, place.start) for place in found.places} == expected.keys()
    for place, distance in zip(found.places, found.distances, strict=True):
        assert distance == pytest.approx(expected[place.record.video_id, place.start], abs=2e-6)


@pytest.mark.parametrize("is_held", [False, True])
def test_the_cache_is_read_in_order_in_bounded_blocks_and_again_only_where_it_is_not_held(
    is_held, make_run, monkeypatch
):
    run, cache = make_run(VIDEOS)
    monkeypatch.setattr(training_windows, "HELD_BYTES", 2**25 if is_held else 0)
    block_frames = 7
    monkeypatch.setattr(training_windows, "BLOCK_BYTES", 4 * block_frames * 2 * 16 * 16)
    search, read = CopySearch(run, cache), []

    def read_windows(starts, *_, **__):
        read.append(np.asarray(starts))
        return real(starts, *_, **__)

    real = cache.read_windows
    monkeypatch.setattr(cache, "read_windows", read_windows)
    clips = [torch.randn(run.latent_shape())]
    search.nearest(clips)
    frames = np.concatenate(read)
    assert len(read) > 3
    assert max(map(len, read)) < 2 * block_frames
    assert (np.diff(frames) >= -1).all()  # a window at the start of a block shares frames with the last one
    search.nearest(clips)
    assert np.concatenate(read).tolist() == frames.tolist() * (1 if is_held else 2)


def test_a_longer_clip_is_found_by_any_of_its_windows_and_a_shorter_one_by_its_length(make_run):
    run, cache = make_run(VIDEOS, frames=12)
    windows = list(all_windows(run, cache, run.training))
    video_id, start, window = windows[7]
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    clip = torch.cat([noise, torch.from_numpy(window).float(), noise], 1)
    (match,) = CopySearch(run, cache, clip.shape[1]).nearest([clip])
    assert (match.video_id, match.place.start, match.clip_start) == (video_id, start, 4)
    short = torch.from_numpy(window[:, 1:]).float()
    (match,) = CopySearch(run, cache, 2).nearest([short])
    assert (match.video_id, match.place.start, match.clip_start) == (video_id, start + 1, 0)
    assert match.distance == pytest.approx(0, abs=2e-6)


def test_held_out_windows_are_spread_evenly_over_videos_and_over_each(make_run, monkeypatch):
    run, cache = make_run({f"{n}.mp4": 80 for n in range(12)}, validation_fraction=0.4)
    num_videos = len(run.validation)
    monkeypatch.setattr(held_out, "MOST_WINDOWS", 3 * num_videos)
    places = held_out.held_out_places(run, cache, run.window_shape())
    expected = [(video_id, start) for video_id in run.validation for start in (0, 9, 18)]
    assert [(record.video_id, start) for record, start in places] == expected
    monkeypatch.setattr(held_out, "MOST_WINDOWS", 2)
    places = held_out.held_out_places(run, cache, run.window_shape())
    assert [record.video_id for record, _ in places] == [run.validation[0], run.validation[-1]]


def test_a_run_without_held_out_videos_has_no_scale(make_run):
    run, cache = make_run(VIDEOS, validation_fraction=0)
    with pytest.raises(TrainError, match="the run holds out none; train with --validation-fraction above 0"):
        CopySearch(run, cache).calibrate()


def test_near_duplicates_of_training_videos_do_not_set_the_scale(make_run):
    run, cache = make_run(VIDEOS, validation_fraction=0.4)
    run = dataclasses.replace(run, duplicates=((run.validation[0], run.training[0]),))
    found = CopySearch(run, cache).calibrate()
    assert found.left_out == run.validation[:1]
    assert {place.record.video_id for place in found.places} == set(run.validation[1:])
    run = dataclasses.replace(run, duplicates=tuple((id, run.training[0]) for id in run.validation))
    with pytest.raises(TrainError, match="holds out only near-duplicates of training videos"):
        CopySearch(run, cache).calibrate()


def test_windows_are_numbered_in_the_order_of_the_cache(make_run):
    run, cache = make_run(VIDEOS)
    windows = TrainingWindows(run, cache, run.window_shape(), torch.device("cpu"))
    places = [windows.place(number) for number in range(len(windows))]
    starts = [record.start + start for record, start in places]
    assert starts == sorted(starts)
    expected = {(video_id, start) for video_id, start, _ in all_windows(run, cache, run.training)}
    assert {(record.video_id, start) for record, start in places} == expected
