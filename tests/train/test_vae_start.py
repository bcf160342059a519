"""The linear start of a VAE is PCA, exactly; computed here without any network."""

import numpy as np
import pytest
import torch

from vidlat.encode.network import TINY_NETWORK, build_network
from vidlat.train.vae_start import BlockMoments, Components, start_from_components


def smooth_frames(num_frames=8, side=16, seed=0):
    """Correlated noise in [0, 1], so that some components matter more than others."""
    noise = torch.rand(
        1, 1, num_frames // 2, side // 4, side // 4, generator=torch.Generator().manual_seed(seed)
    )
    fine = torch.rand(num_frames, side, side, generator=torch.Generator().manual_seed(seed + 1))
    coarse = torch.nn.functional.interpolate(noise, size=(num_frames, side, side), mode="trilinear")[0, 0]
    return (0.8 * coarse + 0.2 * fine).numpy()


def blocks_of(frames):
    """Brute force: every 4x4x4 block as a row."""
    t, h, w = frames.shape
    rows = [
        frames[a : a + 4, b : b + 4, c : c + 4].ravel()
        for a in range(0, t, 4)
        for b in range(0, h, 4)
        for c in range(0, w, 4)
    ]
    return np.stack(rows).astype(np.float64)


def test_moments_add_up_to_the_pca_of_all_blocks():
    pieces = [smooth_frames(seed=seed) for seed in range(3)]
    first, second, third = (BlockMoments.of_frames(piece) for piece in pieces)
    code = (first + second + third).principal_components(4)
    blocks = np.concatenate([blocks_of(piece) for piece in pieces])
    _, singular, rows = np.linalg.svd(blocks - blocks.mean(), full_matrices=False)
    assert code.mean == pytest.approx(blocks.mean())
    np.testing.assert_allclose(code.scales, singular[:4] / np.sqrt(len(blocks)), rtol=1e-6)
    np.testing.assert_allclose(np.abs((code.directions * rows[:4]).sum(axis=1)), 1, rtol=1e-6)


def test_ragged_edges_are_left_out_of_the_moments():
    whole = BlockMoments.of_frames(smooth_frames())
    ragged = BlockMoments.of_frames(np.pad(smooth_frames(), ((0, 3), (0, 1), (0, 2))))
    assert whole.count == ragged.count
    np.testing.assert_array_equal(whole.products, ragged.products)


def test_the_network_starts_as_pca_of_blocks():
    frames = smooth_frames()
    code = BlockMoments.of_frames(frames).principal_components(4)
    torch.manual_seed(0)
    network = build_network(TINY_NETWORK).eval()
    start_from_components(network, code)
    stacks = torch.from_numpy(frames).reshape(2, 1, 4, 16, 16)
    with torch.inference_mode():
        latent_mean, latent_std = network.encode(stacks)
        decoded = network.decode(latent_mean).reshape(8, 16, 16).numpy()
    projected = (blocks_of(frames) - code.mean) @ code.directions.T
    expected = (projected / code.scales).reshape(2, 4, 4, 1, 4).transpose(0, 4, 3, 1, 2)
    np.testing.assert_allclose(latent_mean.numpy(), expected, atol=0.02)
    np.testing.assert_allclose(blocks_of(decoded), projected @ code.directions + code.mean, atol=0.01)
    assert (latent_std < 0.1).all()


def test_groups_too_small_for_the_trick_are_refused():
    network = build_network({**TINY_NETWORK, "norm_num_groups": 8})
    with pytest.raises(ValueError, match="groups of 8 channels cannot hold 4 signals"):
        start_from_components(network, Components(0.5, np.eye(4, 64), np.ones(4)))
