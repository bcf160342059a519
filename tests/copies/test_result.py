"""Planted copies are found and named, and held-out clips are not."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from vidlat.copies.held_out import thresholds
from vidlat.copies.result import find_copies

VIDEOS = {f"{n}.mp4": 40 + 4 * (n % 3) for n in range(24)}


def smooth_posterior(video_id, num_latent_frames):
    """A still picture of its own, with a fifth of its energy moving, on an outline that all videos share."""
    random = np.random.default_rng(int(video_id.removesuffix(".mp4")))
    still = random.normal(size=(2, 1, 16, 16))
    moving = 0.5 * random.normal(size=(2, num_latent_frames, 16, 16))
    outline = 5 * np.random.default_rng(999).normal(size=(2, 1, 16, 16))
    mean = (still + moving + outline).astype(np.float16)
    return mean, np.full(mean.shape, 0.1, np.float16)


@pytest.fixture
def run_and_cache(make_run):
    return make_run(VIDEOS, frames=16, posterior=smooth_posterior, validation_fraction=0.3, latents_as="mean")


def found_copies(samples, run, cache, **options):
    named = {f"{number:02}": sample for number, sample in enumerate(samples)}
    return find_copies({"samples": named}, run, cache, **options)["samples"]


def window(run, cache, video_id, start):
    record, length = cache.records()[video_id], run.window_shape().num_latent_frames
    mean, _ = cache.read_windows(np.array([record.start + start]), length, with_std=False)
    return run.whitening.whiten(torch.from_numpy(mean[0]).float())


def test_thresholds_leave_at_most_the_quantile_below():
    random = np.random.default_rng(0)
    for number in (1, 5, 100, 101):
        distances = random.random(number).round(1)  # with ties
        counts = random.integers(0, 4, (20, number))
        counts[:, 0] += 1
        for quantile in (0.0, 0.01, 0.05, 0.5):
            found = thresholds(distances, counts.astype(float), quantile)
            for row, threshold in zip(counts, found, strict=True):
                drawn = np.sort(distances.repeat(row))
                assert threshold == drawn[int(quantile * len(drawn) + 1e-9)]
                assert (drawn < threshold).sum() <= quantile * len(drawn)


def test_planted_copies_are_found_at_any_shift_of_stacks(run_and_cache):
    run, cache = run_and_cache
    random = torch.Generator().manual_seed(0)
    planted = [(run.training[n % len(run.training)], n % 7) for n in range(28)]
    windows = torch.stack([window(run, cache, *place) for place in planted])
    mean = windows.mean((0, 2, 3), keepdim=True)[0]
    for noise in (0.01, 0.02, 0.05, 0.1, 0.2):
        for contrast in (0.9, 1.0, 1.1):
            changed = mean + contrast * (windows - mean)
            samples = changed + noise * torch.randn(windows.shape, generator=random)
            copies = found_copies(list(samples), run, cache)
            assert [(match.video_id, match.place.start) for match in copies.matches.values()] == planted
            assert sorted(copies.suspects) == list(copies.matches)
            assert copies.share().value == 1


def test_clips_of_other_patients_are_not_taken_for_copies(run_and_cache):
    """Half of the held-out videos set the threshold, the other half are the samples."""
    run, cache = run_and_cache
    scale, samples = run.validation[::2], run.validation[1::2]
    clips = [window(run, cache, video_id, start) for video_id in samples for start in range(7)]
    copies = found_copies(clips, dataclasses.replace(run, validation=scale), cache, quantile=0.05)
    assert len(copies.suspects) <= 0.2 * len(clips)
    share = copies.share()
    assert share.low <= 0.05
    assert copies.threshold > 0.8
    assert "5 % of held-out clips are" in copies.conclusion()


def test_a_result_names_frames_and_says_what_makes_it_uncertain(run_and_cache):
    run, cache = run_and_cache
    copies = found_copies([window(run, cache, run.training[2], 5)], run, cache)
    document = json.loads(json.dumps(copies.to_dict()))
    assert document["nearest"] == [
        {
            "sample": "00", "distance": pytest.approx(0, abs=1e-5), "is_suspect": True, "sample_frame": 0,
            "video_id": run.training[2], "frame": 20,
        }
    ]  # fmt: skip
    assert document["held_out"]["subjects"] == document["held_out"]["videos"] == len(run.validation)
    nearest = document["held_out"]["nearest"]
    assert nearest[0]["distance"] == pytest.approx(min(copies.held_out.distances))
    assert copies.conclusion().startswith(
        f"1 of 1 samples (100.0 %; uncertain: only {len(run.validation)} held-out subjects set the "
        "threshold) is nearer to a training clip than 1 % of held-out clips are"
    )
    (warning,) = copies.warnings()
    num_windows = len(copies.held_out.distances)
    assert num_windows < 100
    assert (
        f"the nearest of {num_windows} held-out clips sets the threshold; for 1 % at least 100 are" in warning
    )
    (warning,) = dataclasses.replace(copies, quantile=1.5 / num_windows).warnings()
    assert f"a few of {len(run.validation)} subjects of all held-out clips set the threshold;" in warning
    assert dataclasses.replace(copies, quantile=0.5).warnings() == []


@pytest.mark.parametrize(("num_subjects", "is_few"), [(99, True), (100, False)])
def test_a_share_is_never_told_without_what_makes_it_uncertain(num_subjects, is_few, run_and_cache):
    run, cache = run_and_cache
    copies = found_copies([window(run, cache, run.training[2], 5)], run, cache)
    subjects = tuple(f"s{number % num_subjects}" for number in range(200))
    places = copies.held_out.places[:1] * 200
    distances = np.linspace(1, 1.4, 200)
    held_out = dataclasses.replace(copies.held_out, distances=distances, places=places, subjects=subjects)
    copies = dataclasses.replace(copies, held_out=held_out)
    doubt = "uncertain: only 99 held-out subjects set the threshold" if is_few else ""
    assert copies.to_dict()["share"] == {"value": 1, "low": None, "high": None, "doubt": doubt}
    assert copies.share_in_words() == (f"100, {doubt}" if is_few else "100")
    assert ("uncertain" in copies.conclusion()) == is_few


@pytest.mark.parametrize(
    ("num_subjects", "counted"), [(1, "1 held-out subject sets"), (2, "2 held-out subjects set"), (3, "")]
)
def test_one_or_two_held_out_subjects_tell_nothing(num_subjects, counted, run_and_cache):
    run, cache = run_and_cache
    few = dataclasses.replace(run, validation=run.validation[:num_subjects])
    copies = found_copies([window(run, cache, run.training[2], 5)], few, cache)
    document = json.loads(json.dumps(copies.to_dict()))
    if not counted:
        assert document["nearest"][0]["is_suspect"] is True
        assert copies.suspects == ["00"]
        return
    doubt = f"cannot be told: only {counted} the threshold, at least 3 are needed"
    assert document["share"] == {"value": None, "low": None, "high": None, "doubt": doubt}
    assert document["nearest"][0]["is_suspect"] is None
    assert copies.suspects == copies.warnings() == []
    assert copies.share_in_words() == doubt
    assert copies.conclusion() == f"whether samples copy training clips {doubt}."


def test_a_recording_on_both_sides_of_the_split_is_named(run_and_cache):
    """The near-duplicates that the run knows of do not count; this one it has not seen."""
    run, cache = run_and_cache
    twin = run.training[0]
    copies = find_copies({"new": {"a": torch.zeros(run.latent_shape())}}, run, cache)["new"]
    assert copies.held_out.same_recordings() == []
    both = dataclasses.replace(run, validation=(twin, *run.validation))
    copies = find_copies({"new": {"a": torch.zeros(run.latent_shape())}}, both, cache)["new"]
    assert copies.held_out.same_recordings() == [twin]
    assert f"held out and nearer than 0.5 to a training clip: {twin};" in copies.warnings()[0]
    assert "; uncertain: some recordings are on both sides of the split)" in copies.conclusion()
    assert twin not in copies.conclusion()  # else an exported card would not have it


def test_sets_are_told_apart_and_have_an_interval_for_several_samples(run_and_cache):
    run, cache = run_and_cache
    noise = torch.randn(3, *run.latent_shape(), generator=torch.Generator().manual_seed(0))
    copied = [window(run, cache, video_id, 2) for video_id in run.training[:2]]
    sets = {"new": noise, "half": [noise[0], copied[0]], "old": copied}
    sets = {name: dict(zip("abc", each, strict=False)) for name, each in sets.items()}
    found = find_copies(sets, run, cache)
    assert {name: copies.share().value for name, copies in found.items()} == {"new": 0, "half": 0.5, "old": 1}
    share = found["half"].share()
    assert 0 <= share.low < 0.5 < share.high <= 1
    assert found["half"].nearest_first() == ["b", "a"]
