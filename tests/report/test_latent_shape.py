"""Figures of latents are those of SciPy, over the values that are no padding."""

import numpy as np
import pytest
from scipy import stats

from tests.store.damage import make_three_videos, write_latents
from tests.train.toys import CacheMaker
from vidlat.report import latent_shape
from vidlat.report.latent_shape import LatentShape
from vidlat.store.reader import open_cache


def skewed(video_id, num_latent_frames):
    """One channel far from normal, one whose mean and spread are all that is not."""
    rng = np.random.default_rng(len(video_id))
    shape = (num_latent_frames, 4, 4)
    mean = np.stack([rng.gamma(2.0, size=shape), 3 + 0.5 * rng.normal(size=shape)])
    return mean.astype(np.float16), np.full(mean.shape, 0.25, np.float16)


@pytest.fixture
def cache(tmp_path):
    return CacheMaker(tmp_path / "l.zarr").add({"a": 40, "bb": 64, "ccc": 400}, skewed)


def read(cache):
    shape = LatentShape(cache)
    assert list(shape.read()) == list(cache.records())[: shape.num_to_read]
    return shape


def test_figures_are_those_of_scipy(cache, monkeypatch):
    monkeypatch.setattr(latent_shape, "MOST_LATENT_FRAMES", 1000)
    shape = read(cache)
    records = cache.records()
    whole = [
        cache.read_latents(video_id).mean[:, : record.latents.count // 16]
        for video_id, record in records.items()
    ]
    values = np.concatenate([mean.reshape(2, -1) for mean in whole], 1).astype(np.float64)
    for channel, expected in zip(shape.channels(), values, strict=True):
        assert channel.mean == pytest.approx(expected.mean())
        assert channel.std == pytest.approx(expected.std())
        assert channel.posterior_std == pytest.approx(0.25)
        assert channel.skewness == pytest.approx(stats.skew(expected))
        assert channel.excess_kurtosis == pytest.approx(stats.kurtosis(expected))
        assert channel.distance == pytest.approx(stats.kstest(expected, "norm").statistic, abs=0.01)
        whitened = (expected - expected.mean()) / expected.std()
        assert channel.distance_whitened == pytest.approx(stats.kstest(whitened, "norm").statistic, abs=0.01)
        assert channel.shares.sum() == pytest.approx(1)


def test_a_normal_channel_is_near_a_standard_normal_once_it_is_whitened(tmp_path):
    cache = CacheMaker(tmp_path / "l.zarr").add({"a": 400}, skewed)
    gamma, normal = read(cache).channels()
    assert normal.distance > 0.9
    assert normal.distance_whitened < 0.1 < gamma.distance_whitened


def test_a_constant_channel_has_no_shape(tmp_path):
    def constant(_, num_latent_frames):
        mean = np.full((2, num_latent_frames, 4, 4), 3, np.float16)
        return mean, mean

    channel, _ = read(CacheMaker(tmp_path / "l.zarr").add({"a": 40}, constant)).channels()
    assert (channel.mean, channel.std, channel.skewness, channel.excess_kurtosis) == (3, 0, None, None)
    assert channel.distance == pytest.approx(1, abs=0.01)


def test_of_many_videos_some_are_read(cache, monkeypatch):
    monkeypatch.setattr(latent_shape, "MOST_VIDEOS", 2)
    shape = LatentShape(cache)
    assert list(shape.read()) == ["a", "ccc"]
    assert shape.num_videos == 2


def test_at_most_a_few_frames_of_a_video_are_read(cache, monkeypatch):
    lengths = []
    real = type(cache).read_windows

    def read_windows(self, starts, length, **more):
        lengths.append(length)
        return real(self, starts, length, **more)

    monkeypatch.setattr(type(cache), "read_windows", read_windows)
    read(cache)
    assert max(lengths) <= latent_shape.MOST_LATENT_FRAMES


def test_damaged_videos_are_left_out(tmp_path):
    path = make_three_videos(tmp_path / "l.zarr")
    write_latents(path, slice(0, 2), 7)
    shape = read(open_cache(path))
    assert list(shape.damaged) == ["a.mp4"]
    assert shape.num_videos == 2
