"""Fréchet distance: SciPy's matrix square root and the closed form of a shift are the oracles."""

import numpy as np
import pytest
import scipy.linalg
import torch

from benchmarks.frechet import clip_features, frechet_distance
from vidlat.config import LatentSettings
from vidlat.encode.vae import load_vae


def test_distance_is_that_of_the_formula_with_scipys_square_root():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(60, 5)), rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + 1
    covariances = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(sum(covariances) - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-4)


def test_distance_of_a_set_to_itself_is_zero_and_to_a_shifted_one_the_shift_squared():
    features = np.random.default_rng(0).normal(size=(300, 128))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + 0.5) == pytest.approx(128 * 0.25)


def test_features_are_means_and_stds_of_cells_of_the_latents_encoded_again(small_vae):
    vae = load_vae(small_vae, LatentSettings(precision="float32"), device="cpu")
    latents = np.random.default_rng(0).normal(size=(vae.latent_dim, 2, 8, 8)).astype(np.float32)
    features = clip_features(vae, latents).reshape(2, vae.latent_dim, 4, 4)
    frames = vae.decode(torch.from_numpy(latents)[None], 8).clamp(0, 1)
    again = vae.encode(frames)[0][0].double().numpy()
    for row in range(4):
        for column in range(4):
            cell = again[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_allclose(features[0, :, row, column], cell.mean((1, 2, 3)))
            np.testing.assert_allclose(features[1, :, row, column], cell.std((1, 2, 3)))
