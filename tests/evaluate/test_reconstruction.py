"""Evaluating a cache from Python: one event per reading of a video, refusals before any video is read."""

import json
import math
import threading

import numpy as np
import pytest
from click.testing import CliRunner

from vidlat.cli import commands
from vidlat.errors import InputError, StoreError
from vidlat.evaluate.reconstruction import Evaluation, evaluate_videos

LENGTHS = {"a.mp4": 9, "b.mp4": 4, "c.mp4": 6}


@pytest.fixture(scope="module")
def cache(make_videos, encode_here, tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)
    return encode_here(folder, tmp_path_factory.mktemp("cache") / "l.zarr")


def test_every_video_is_read_then_compared_and_missing_ones_are_named(cache, make_videos, tmp_path):
    make_videos(tmp_path, {"a.mp4": 9, "b.mp4": 5})
    events = list(evaluate_videos(cache, [tmp_path], device="cpu"))
    assert [(e.video_id, e.has_source, bool(e.failure), bool(e.comparison)) for e in events] == [
        ("c.mp4", False, False, False),
        ("a.mp4", True, False, False),
        ("b.mp4", True, True, False),
        ("a.mp4", True, False, True),
    ]
    evaluation = Evaluation.of(events)
    assert evaluation.without_source == ["c.mp4"]
    assert "no longer has the 4 frames" in evaluation.failed["b.mp4"]
    assert [video.vae.num_frames for video in evaluation.videos] == [9]
    assert evaluation.videos[0].averaging.video_id == "a.mp4"


def test_wrong_inputs_are_refused_before_a_video_is_read(cache, make_videos, tmp_path, monkeypatch):
    monkeypatch.setattr("vidlat.video.reader.open_video", None)
    make_videos(tmp_path, {"z.mp4": 3})
    with pytest.raises(InputError, match="none of the cached videos"):
        evaluate_videos(cache, [tmp_path], device="cpu")
    with pytest.raises(StoreError, match="not a vidlat cache"):
        evaluate_videos(tmp_path / "nowhere.zarr", [tmp_path])


@pytest.mark.parametrize("stretch", [2, 4])
def test_baselines_have_as_many_latent_frames_as_the_cache(make_videos, encode_here, tmp_path, stretch):
    """Where frames change all the time, averages of fewer keep more of the changes."""
    folder = make_videos(tmp_path / "v", {"a.mp4": 9, "b.mp4": 5})
    energies = []
    for settings in ({}, {"stretch": stretch}):
        out = encode_here(folder, tmp_path / f"{stretch if settings else 1}.zarr", **settings)
        (a, _) = [e.comparison for e in evaluate_videos(out, [folder], device="cpu") if e.comparison]
        assert a.vae.num_frames == a.averaging.num_frames == 9
        energies.append(a.averaging.motion.energy)
    assert energies[1] > 2 * energies[0]


@pytest.fixture
def odd(tmp_path, make_videos):
    """A single frame, one that does not move, a black one, one shorter than a stack, and one as usual."""
    folder = make_videos(tmp_path / "v", {"one.mp4": 1, "short.mp4": 3, "usual.mp4": 9})
    np.save(
        folder / "still.npy",
        np.tile(np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8), (9, 1, 1)),
    )
    np.save(folder / "black.npy", np.zeros((6, 20, 24), np.uint8))
    return folder


def test_odd_videos_have_true_figures_and_none_where_they_are_undefined(odd, encode_here, tmp_path):
    out = encode_here(odd, tmp_path / "l.zarr")
    evaluation = Evaluation.of(evaluate_videos(out, [odd], device="cpu"))
    assert evaluation.failed == {}
    assert len(evaluation.videos) == 5
    json.dumps(evaluation.to_dict(), allow_nan=False)
    of = {video.vae.video_id: video for video in evaluation.videos}
    for video in of.values():
        for quality in (video.vae, video.averaging, video.pca):
            assert math.isfinite(quality.mse)
            assert -1 <= quality.ssim <= 1
    assert [of[name].vae.num_frames for name in ("one.mp4", "short.mp4", "still.npy")] == [1, 3, 9]
    for name in ("one.mp4", "still.npy", "black.npy"):
        motion = of[name].vae.motion
        assert motion.energy is motion.correlation is motion.correlation_at_borders is None
    assert of["short.mp4"].vae.motion.energy_at_borders is None
    assert of["short.mp4"].vae.motion.energy_inside is not None
    assert of["black.npy"].vae.sharpness is None
    assert of["black.npy"].averaging.psnr == math.inf
    assert of["still.npy"].averaging.motion.energy is None


def test_the_command_says_what_is_undefined(odd, encode_here, tmp_path):
    out = encode_here(odd, tmp_path / "l.zarr")
    arguments = ["evaluate", "--latents", out, "--input", odd, "--device", "cpu"]
    answer = CliRunner().invoke(commands, [*map(str, arguments)])
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert "3 videos without motion (a single frame, or all equal)" in answer.stdout
    assert "nan" not in answer.stdout.lower()
    only = [*map(str, arguments[:4]), str(odd / "one.mp4"), "--device", "cpu"]
    answer = CliRunner().invoke(commands, only)
    assert "The videos do not move: each is a single frame" in answer.stdout


def test_frames_smaller_than_the_window_of_ssim_are_one_line_before_a_video_is_read(
    make_videos, encode_here, tmp_path, monkeypatch
):
    folder = make_videos(tmp_path / "v", {"a.mp4": 5})
    out = encode_here(folder, tmp_path / "l.zarr", size=8)
    monkeypatch.setattr("vidlat.video.reader.open_video", None)
    answer = CliRunner().invoke(commands, ["evaluate", "--latents", str(out), "--input", str(folder)])
    assert answer.exit_code == 1
    assert "frames of 8x8 pixels cannot be compared" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_giving_up_early_ends_the_threads(cache, make_videos, tmp_path):
    make_videos(tmp_path, LENGTHS)
    events = evaluate_videos(cache, [tmp_path], device="cpu")
    assert next(events).video_id == "a.mp4"
    events.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evaluate")]


def test_figures_do_not_depend_on_how_many_videos_are_compared_at_once(
    cache, make_videos, tmp_path, monkeypatch
):
    make_videos(tmp_path, LENGTHS)
    several = Evaluation.of(evaluate_videos(cache, [tmp_path], device="cpu"))
    monkeypatch.setattr("vidlat.evaluate.reconstruction.choose_num_workers", lambda _: 1)
    assert Evaluation.of(evaluate_videos(cache, [tmp_path], device="cpu")) == several
