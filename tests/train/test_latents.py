import json

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from vidlat.documents import Fields
from vidlat.errors import TrainError
from vidlat.train.data.latents import Whitening

FINITE = st.floats(-100, 100, width=32)


@given(
    mean=st.tuples(FINITE, FINITE),
    scale=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    values=st.lists(st.floats(-10, 10, width=32), min_size=8, max_size=8),
)
def test_unwhiten_undoes_whiten(mean, scale, values):
    whitening = Whitening(mean=mean, scale=scale)
    latents = torch.tensor(values, dtype=torch.float64).view(1, 2, 1, 2, 2)
    torch.testing.assert_close(whitening.unwhiten(whitening.whiten(latents)), latents)
    torch.testing.assert_close(whitening.whiten(whitening.unwhiten(latents)), latents)


@pytest.mark.parametrize("latents_as", ["sample", "mean"])
def test_whitening_equals_that_of_all_valid_latents_read_back(make_cache, latents_as):
    # Of b.mp4's second latent frame one video frame is real, of d.mp4's second none.
    cache, _ = make_cache({"a.mp4": 16, "b.mp4": 5, "d.mp4": 1}, stack=8)
    means, stds = [], []
    for video_id, num_valid in {"a.mp4": 4, "b.mp4": 2, "d.mp4": 1}.items():
        posterior = cache.read_latents(video_id)
        means.append(posterior.mean[:, :num_valid].astype(np.float64).reshape(2, -1))
        stds.append(posterior.std[:, :num_valid].astype(np.float64).reshape(2, -1))
    mean, std = np.concatenate(means, 1), np.concatenate(stds, 1)
    variance = mean.var(1) + ((std**2).mean(1) if latents_as == "sample" else 0)

    whitening = Whitening.from_records(cache.records().values(), latents_as)
    np.testing.assert_allclose(whitening.mean, mean.mean(1), rtol=1e-9)
    np.testing.assert_allclose(whitening.scale, np.sqrt(variance), rtol=1e-9)


def test_whitened_posterior_draws_have_mean_zero_and_variance_one(make_cache):
    def wide(video_id, num_latent_frames):
        random = np.random.default_rng(0)
        shape = (2, num_latent_frames, 4, 4)
        return random.normal(5, 1, shape).astype(np.float16), np.full(shape, 2, np.float16)

    cache, _ = make_cache({"a.mp4": 4000}, posterior=wide)
    posterior = cache.read_latents("a.mp4")
    noise = np.random.default_rng(1).normal(size=posterior.mean.shape)
    drawn = torch.from_numpy(posterior.mean + posterior.std * noise)
    whitened = Whitening.from_records(cache.records().values(), "sample").whiten(drawn)
    assert whitened.mean().abs() < 0.03
    assert abs(whitened.var() - 1) < 0.03


def test_a_channel_that_never_changes_is_only_centred(make_cache):
    def constant(video_id, num_latent_frames):
        shape = (2, num_latent_frames, 4, 4)
        return np.full(shape, 0.1, np.float16), np.zeros(shape, np.float16)

    cache, _ = make_cache({"a.mp4": 400}, posterior=constant)
    for latents_as in ("mean", "sample"):
        assert Whitening.from_records(cache.records().values(), latents_as).scale == (1.0, 1.0)


def test_whitening_survives_json_to_the_last_bit(cache):
    whitening = Whitening.from_records(cache.records().values(), "sample")
    again = json.loads(json.dumps(whitening.to_dict()))
    assert Whitening.from_fields(Fields(again, "whitening"), len(whitening.mean)) == whitening


def test_records_without_a_value_are_refused():
    with pytest.raises(TrainError, match="no latent values"):
        Whitening.from_records([], "mean")
