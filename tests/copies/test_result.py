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


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("contrast", [0.9, 1.0, 1.1])
def test_planted_copies_are_found_at_any_shift_of_stacks(noise, contrast, run_and_cache):
    run, cache = run_and_cache
    random = torch.Generator().manual_seed(0)
    planted = [(run.training[n % len(run.training)], n % 7) for n in range(28)]
    samples = [window(run, cache, *place) for place in planted]
    whitened_mean = torch.stack(samples).mean((0, 2), keepdim=True)[0]
    samples = [
        whitened_mean
        + contrast * (sample - whitened_mean)
        + noise * torch.randn(sample.shape, generator=random)
        for sample in samples
    ]
    copies = find_copies(samples, run, cache)
    assert [(match.video_id, match.place.start) for match in copies.matches] == planted
    assert sorted(copies.suspects) == list(range(len(samples)))
    assert copies.share().value == 1


def test_clips_of_other_patients_are_not_taken_for_copies(run_and_cache):
    """Half of the held-out videos set the threshold, the other half are the samples."""
    run, cache = run_and_cache
    scale, samples = run.validation[::2], run.validation[1::2]
    clips = [window(run, cache, video_id, start) for video_id in samples for start in range(7)]
    copies = find_copies(clips, dataclasses.replace(run, validation=scale), cache, quantile=0.05)
    assert len(copies.suspects) <= 0.2 * len(clips)
    share = copies.share()
    assert share.low <= 0.05
    assert copies.threshold > 0.8
    assert "5 % of held-out clips" in copies.sentences()[0]


def test_a_result_names_frames_and_says_what_makes_it_uncertain(run_and_cache):
    run, cache = run_and_cache
    copies = find_copies([window(run, cache, run.training[2], 5)], run, cache)
    document = json.loads(json.dumps(copies.to_dict()))
    assert document["nearest"] == [
        {
            "sample": 0, "distance": pytest.approx(0, abs=1e-5), "is_suspect": True, "sample_frame": 0,
            "video_id": run.training[2], "frame": 20,
        }
    ]  # fmt: skip
    assert document["held_out"]["subjects"] == document["held_out"]["videos"] == len(run.validation)
    nearest = document["held_out"]["nearest"]
    assert nearest[0]["distance"] == pytest.approx(min(copies.held_out.distances))
    first, second = copies.sentences()
    assert first.startswith("1 of 1 samples (100.0 %) are nearer to a training clip than 1 % of held-out")
    assert second.startswith("the threshold is the nearest of") or "held-out subjects" in second
