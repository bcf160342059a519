"""The linear start of a VAE is PCA, exactly; computed here without any network."""

import numpy as np
import pytest
import torch

from tests.encode.blocks import blocks_of, smooth_frames
from vidlat.encode.block_pca import BlockMoments, BlockPca
from vidlat.encode.network import TINY_NETWORK, build_network, small_network
from vidlat.fit.linear_start import start_from_pca

BLOCK = (4, 4, 4)


@pytest.mark.parametrize(("latent_dim", "tolerance"), [(4, 0.02), (16, 0.05), (31, 0.1)])
def test_the_network_starts_as_pca_of_blocks(latent_dim, tolerance):
    frames = smooth_frames(side=64)
    moments = BlockMoments(BLOCK)
    moments.update(frames)
    pca = moments.pca(latent_dim, constant_mean=True)
    torch.manual_seed(0)
    network = build_network(small_network(latent_dim)).eval()
    start_from_pca(network, pca)
    stacks = torch.from_numpy(frames).reshape(2, 1, 4, 64, 64)
    with torch.inference_mode():
        latent_mean, latent_std = network.encode(stacks)
        decoded = network.decode(latent_mean).reshape(8, 64, 64).numpy()
    projected = (blocks_of(frames) - pca.mean) @ pca.components.T
    expected = (projected / pca.scales).reshape(2, 16, 16, 1, latent_dim).transpose(0, 4, 3, 1, 2)
    np.testing.assert_allclose(latent_mean.numpy(), expected, atol=tolerance)
    np.testing.assert_allclose(blocks_of(decoded), projected @ pca.components + pca.mean, atol=0.01)
    assert (latent_std < 0.01).all()


def test_groups_too_small_for_the_constants_are_refused():
    network = build_network({**TINY_NETWORK, "norm_num_groups": 8})
    with pytest.raises(ValueError, match="groups of 8 channels cannot hold 4 signals"):
        start_from_pca(network, BlockPca(BLOCK, np.full(64, 0.5), np.eye(4, 64), np.ones(4)))
