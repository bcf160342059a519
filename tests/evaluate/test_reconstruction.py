"""Evaluating a cache from Python: one event per reading of a video, refusals before any video is read."""

import pytest

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
