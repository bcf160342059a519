"""The linear start of a VAE is PCA, exactly; computed here without any network."""

import numpy as np
import pytest
import torch

from tests.encode.blocks import blocks_of, smooth_frames
from tests.fit.small import config
from tests.thorough import some_of
from vidlat.encode.block_pca import BlockMoments, BlockPca
from vidlat.encode.network import TINY_NETWORK, build_network
from vidlat.fit.linear_start import start_from_pca
from vidlat.fit.networks import network_from_scratch

BLOCK = (4, 4, 4)


@pytest.mark.parametrize(
    ("latent_dim", "settings", "tolerance"),
    some_of(
        [
            (4, {}, 0.02),
            (16, {}, 0.05),
            (31, {}, 0.1),
            (4, {"network": "maisi", "start": "pca", "res_blocks": (1, 2, 1)}, 0.02),
            (12, {"channels": (8, 12, 26)}, 0.05),  # the narrowest
        ]
    ),
)
def test_the_network_starts_as_pca_of_blocks(latent_dim, settings, tolerance):
    side = 32 if settings else 64
    frames = smooth_frames(side=side)
    moments = BlockMoments(BLOCK)
    moments.update(frames)
    pca = moments.pca(latent_dim, constant_mean=True)
    torch.manual_seed(0)
    network = build_network(network_from_scratch(config(latent_dim=latent_dim, **settings))).eval()
    start_from_pca(network, pca)
    stacks = torch.from_numpy(frames).reshape(2, 1, 4, side, side)
    with torch.inference_mode():
        latent_mean, latent_std = network.encode(stacks)
        decoded = network.decode(latent_mean).reshape(8, side, side).numpy()
    projected = (blocks_of(frames) - pca.mean) @ pca.components.T
    expected = (
        (projected / pca.scales).reshape(2, side // 4, side // 4, 1, latent_dim).transpose(0, 4, 3, 1, 2)
    )
    np.testing.assert_allclose(latent_mean.numpy(), expected, atol=tolerance)
    np.testing.assert_allclose(blocks_of(decoded), projected @ pca.components + pca.mean, atol=0.01)
    assert (latent_std < 0.01).all()


def test_groups_too_small_for_the_constants_are_refused():
    network = build_network({**TINY_NETWORK, "norm_num_groups": 8})
    with pytest.raises(ValueError, match="groups of 8 channels cannot hold 4 signals"):
        start_from_pca(network, BlockPca(BLOCK, np.full(64, 0.5), np.eye(4, 64), np.ones(4)))
